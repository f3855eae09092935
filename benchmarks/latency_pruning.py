"""Channels as they fall, rounded, and chosen by measured latency: what each buys in a runtime.

    python benchmarks/latency_pruning.py -o s.jsonl --model yolox-s --size 640
    python benchmarks/latency_pruning.py -o s.jsonl --table

For each share of MACs removed, three plans of one threshold over all layers: any number of
channels, multiples of 8, multiples of 16. Then a plan for the fraction of the whole model's time
that the last of them was measured at. All of them and the whole model are exported and timed in
turns, in one run. Ideal is a model whose time falls as its MACs do: efficiency = speed-up × MACs
left, 1 at best.

Latency does not depend on the values of weights. Without a checkpoint they are made up: filters
whose norms spread log-normally, so that a threshold finds something to choose. Lines that the
file already holds are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolox.exp import get_exp
from yolox.jobs.calibration import probe
from yolox.jobs.prune_latency import LatencySettings, ModelClock, plan_for_latency
from yolox.models import LoadedModel, build_model, load_model
from yolox.pruning import (
    Group,
    PruneConfig,
    PruningError,
    PruningPlan,
    apply_plan,
    plan_pruning,
    trace_groups,
)
from yolox.pruning.scorers import make_scorer
from yolox.pruning.select import select_groups
from yolox.utils.checkpoint import file_digest
from yolox.utils.device import processor
from yolox.utils.model_utils import count_macs, count_params

KINDS = {"as they fall": 1, "multiples of 8": 8, "multiples of 16": 16}
BY_LATENCY = "by latency"
SPREAD = 0.5  # of the logarithm of a made-up filter's norm


def made_up(name: str, size: int) -> LoadedModel:
    """A model of the family with filters of various norms."""
    torch.manual_seed(0)
    spec = dataclasses.replace(get_exp(None, name).model_spec(), input_size=(size, size))
    model = build_model(spec).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                factors = torch.exp(SPREAD * torch.randn(module.out_channels))
                module.weight.mul_(factors[:, None, None, None])
    return LoadedModel(model=model, spec=spec, pruning=[], content={})


def kept_importance(groups: Sequence[Group], scores: Sequence[Tensor], plan: PruningPlan) -> float:
    """Share of the sum of scores that a plan leaves."""
    total = sum(float(score.double().sum()) for score in scores)
    gone = sum(
        float(score.double()[list(plan.removed.get(group.name, ()))].sum())
        for group, score in zip(groups, scores, strict=True)
    )
    return 1 - gone / total


def measure(
    loaded: LoadedModel, removed: float, settings: LatencySettings, importance: str
) -> list[dict[str, Any]]:
    """A line for each kind of plan."""
    model = loaded.model
    groups = trace_groups(model, probe())
    image = torch.zeros(1, 3, *loaded.spec.input_size)
    base = PruneConfig(importance=importance, rounds=1, target=f"macs={1 - removed:g}")
    scorer = make_scorer(base)
    chosen = select_groups(groups, base)
    scores = scorer(model, chosen)
    plans = {}
    for kind, step in KINDS.items():
        config = PruneConfig(
            importance=importance, rounds=1, target=base.target, round_to=step, scope="global"
        )
        plans[kind] = plan_pruning(model, groups, config, count_input=image)
    with tempfile.TemporaryDirectory() as folder:
        clock = ModelClock(loaded, settings, Path(folder))
        works = [clock.open(model)]
        works += [clock.open(apply_plan(model, groups, plan)) for plan in plans.values()]
        times = clock.time(works)
        asked = times[-1] / times[0]
        config = PruneConfig(importance=importance, rounds=1, target=f"latency={asked:.4f}")
        try:
            found, record = plan_for_latency(loaded, groups, config, settings, scorer)
        except PruningError as error:
            print(f"no plan by latency: {error}", flush=True)
        else:
            plans[BY_LATENCY] = found
            works.append(clock.open(apply_plan(model, groups, found)))
        times = clock.time(works)
    whole = count_macs(model, image)[""]
    lines = []
    for (kind, plan), ms in zip(plans.items(), times[1:], strict=True):
        small = apply_plan(model, groups, plan)
        left = count_macs(small, image)[""] / whole
        line = {
            "kind": kind,
            "macs_left": left,
            "params_left": count_params(small) / count_params(model),
            "parent_ms": times[0],
            "ms": ms,
            "speed_up": times[0] / ms,
            "efficiency": left * times[0] / ms,
            "importance_kept": kept_importance(chosen, scores, plan),
        }
        if kind == BY_LATENCY:
            line |= {
                "asked": asked,
                "found": record.result_ms / record.parent_ms,
                "step": record.step,
                "tries": len(record.attempts),
            }
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """All lines as Markdown."""
    rows = [
        "| model | runtime | MACs removed | channels | MACs left | time | speed-up | efficiency "
        "| importance kept | asked for |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        asked = ""
        if "asked" in line:
            asked = (
                f"{line['asked']:.3f} ({line['ms'] / line['parent_ms'] / line['asked'] - 1:+.1%})"
            )
        rows.append(
            f"| {line['model']} at {line['size']} | {line['runtime']} | {line['removed']:.0%} "
            f"| {line['kind']} | {line['macs_left']:.1%} | {line['ms']:.1f} of "
            f"{line['parent_ms']:.1f} ms | {line['speed_up']:.2f} × | {line['efficiency']:.2f} "
            f"| {line['importance_kept']:.4f} | {asked} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="file of lines, gone on with")
    add("-c", "--ckpt", type=Path, help="checkpoint in place of --model")
    add("--model", default="yolox-s", help="with made-up weights (yolox-s)")
    add("--size", type=int, default=640, help="side of the input (640)")
    add("--runtimes", nargs="+", default=["onnxruntime", "openvino"])
    add("--removed", nargs="+", type=float, default=[0.3, 0.5, 0.7], help="shares of the MACs")
    add("--threads", type=int, default=2)
    add("--importance", default="l2", help="a criterion of the weights (l2)")
    add("--table", action="store_true", help="print what the file holds, measure nothing")
    args = parser.parse_args()
    lines = []
    if args.output.exists():
        text = args.output.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    if args.table:
        print(table(lines))
        return
    loaded = load_model(args.ckpt) if args.ckpt else made_up(args.model, args.size)
    name = args.ckpt.stem if args.ckpt else args.model
    for runtime in args.runtimes:
        for removed in args.removed:
            key = {
                "model": name,
                "ckpt": args.ckpt and file_digest(args.ckpt)[:12],
                "size": loaded.spec.input_size[0],
                "runtime": runtime,
                "threads": args.threads,
                "importance": args.importance,
                "removed": removed,
            }
            if any(line.items() >= key.items() for line in lines):
                continue
            settings = LatencySettings(runtime=runtime, threads=args.threads)
            new = [
                key | line | {"machine": processor()}
                for line in measure(loaded, removed, settings, args.importance)
            ]
            lines += new
            with args.output.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            print(table(new), flush=True)


if __name__ == "__main__":
    main()
