"""AP right after pruning, without any training: criterion × scope × MACs left × compensation.

    python benchmarks/pruning_criteria.py -f exps/bccd_tiny.py \
        -c YOLOX_outputs/bccd_tiny/best_ckpt.pth -o tiny.jsonl data_dir $BCCD

Each criterion is scored once and reused; lines already in the output file are not measured again.
With --draw, the file becomes a table (Markdown) and a picture instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from yolox.exp.follow import follow_checkpoint
from yolox.jobs.calibration import CALIBRATION_BATCH_SIZE, probe, total_loss
from yolox.models import load_model
from yolox.pruning import (
    CRITERIA,
    Group,
    PruneConfig,
    PruningError,
    PruningPlan,
    apply_plan,
    compensate_cut,
    make_scorer,
    plan_pruning,
    trace_groups,
)
from yolox.pruning.config import SCOPES
from yolox.tools import cli
from yolox.tools.flags import parts
from yolox.utils.checkpoint import file_digest
from yolox.utils.logger import setup_logger
from yolox.utils.model_utils import count_macs, count_params

OFF: dict[str, Any] = {"absorb": False, "bn_recalibrate": 0, "reconstruct": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "off": OFF,
    "absorb": OFF | {"absorb": True},
    "bn": OFF | {"bn_recalibrate": 64},
    "reconstruct": OFF | {"reconstruct": 64},
    "all": {"absorb": True, "bn_recalibrate": 64, "reconstruct": 64},
}
Line = tuple[str, str, str, int]  # criterion, scope, variant, rounds
COLOURS = plt.colormaps["tab10"].colors
TOP_RIGHT = (0.97, 0.96, "right", "top")
MARKERS = "Xos^vDP*h<"
PLAIN = "plain"  # the line to beat: L2, ranked by norm alone, nothing else


class Bench:
    """A checkpoint, its data, and everything that is measured once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.exp = cli.load_exp(args)
        self.loaded = load_model(args.ckpt)
        self.exp = follow_checkpoint(self.exp, self.loaded.spec, args.ckpt)
        self.evaluator = self.exp.get_evaluator(16)
        self.batches = self.exp.calibration_batches(args.images, CALIBRATION_BATCH_SIZE)
        self.images = torch.cat([x for x, _ in self.exp.calibration_batches(64, 1)])
        self.count_input = torch.zeros(1, 3, *self.loaded.spec.input_size)
        self.groups = trace_groups(self.loaded.model, probe())
        self.scores: dict[Any, list[torch.Tensor]] = {}
        self.plans: dict[str, PruningPlan] = {}

    def ap(self, model: torch.nn.Module) -> tuple[float, float]:
        result = self.evaluator.run(model.to(memory_format=torch.channels_last))
        return result.ap50_95, result.ap50

    def plan(self, config: PruneConfig) -> PruningPlan:
        """The config's plan; a criterion's scores of the whole model are computed once."""
        scorer = make_scorer(config, self.batches, total_loss)
        key = (config.importance, config.aggregate, config.normalize, config.seed)

        def remembered(model: torch.nn.Module, groups: Sequence[Group]) -> list[torch.Tensor]:
            if model is not self.loaded.model:
                return scorer(model, groups)
            if key not in self.scores:
                self.scores[key] = scorer(model, groups)
            return self.scores[key]

        return plan_pruning(
            self.loaded.model,
            self.groups,
            config,
            count_input=self.count_input,
            scorer=remembered,
        )

    def measure(self, config: PruneConfig) -> dict[str, Any]:
        model = self.loaded.model
        start = time.perf_counter()
        cut = dataclasses.replace(config, **OFF)
        key = json.dumps(cut.to_dict())
        if key not in self.plans:
            self.plans[key] = self.plan(config)
        plan = self.plans[key]
        ready, _ = compensate_cut(model, self.groups, plan, config, probe(), self.images)
        seconds = time.perf_counter() - start
        small = apply_plan(ready, self.groups, plan)
        ap, ap50 = self.ap(small)
        macs = count_macs(small, self.count_input)[""] / count_macs(model, self.count_input)[""]
        params = count_params(small) / count_params(model)
        return {"macs": macs, "params": params, "ap": ap, "ap50": ap50, "seconds": seconds}


def rows(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], PruneConfig]]:
    checkpoint = file_digest(args.ckpt)[:12]
    for left, name, scope, variant in itertools.product(
        args.left, [PLAIN, *args.criteria], args.scopes, args.variants
    ):
        if name == PLAIN and (scope, variant) != ("global", "off"):
            continue
        for rounds in args.rounds if CRITERIA.get(name) and CRITERIA[name].needs_data else [1]:
            if rounds > 1 and scope != "global":
                continue
            key = {
                "ckpt": checkpoint,
                "images": args.images,
                "criterion": name,
                "scope": scope,
                "left": left,
                "variant": variant,
                "rounds": rounds,
                "round_to": args.round_to,
                "per": args.per,
                "normalize": args.normalize,
                "aggregate": args.aggregate,
            }
            plain = {"importance": "l2", "per": "none", "normalize": "none"}
            options = plain if name == PLAIN else {"importance": name}
            for field in ("per", "normalize", "aggregate"):
                if getattr(args, field) and scope == "global" and name != PLAIN:
                    options[field] = getattr(args, field)
            yield (
                key,
                PruneConfig(
                    target=f"macs={left}",
                    scope=scope,
                    rounds=rounds,
                    round_to=args.round_to,
                    **{**VARIANTS[variant], **options},
                ),
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--ckpt", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--scopes", nargs="+", default=list(SCOPES))
    parser.add_argument("--left", nargs="+", type=float, default=[0.9, 0.8, 0.7, 0.6, 0.5])
    parser.add_argument("--variants", nargs="+", default=["off", "all"], choices=VARIANTS)
    parser.add_argument("--rounds", nargs="+", type=int, default=[1])
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--per", help="instead of each criterion's own price (scope global)")
    parser.add_argument("--normalize", help="likewise")
    parser.add_argument("--aggregate", help="likewise")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--draw", type=Path, help="picture to draw from the output file")
    parser.add_argument("--title", default="", help="of that picture: model, data, size")
    parts.add_exp_arguments(parser)
    args = parser.parse_args(argv)
    setup_logger()
    if args.draw:
        draw(args.output, args.draw, args.title)
        return
    known = read(args.output)
    bench = Bench(args)
    whole = {"ckpt": file_digest(args.ckpt)[:12], "criterion": "none", "left": 1.0}
    if not any(row.items() >= whole.items() for row in known):
        ap, ap50 = bench.ap(bench.loaded.model)
        append(args.output, whole | {"ap": ap, "ap50": ap50})
    for key, config in rows(args):
        if any(row.items() >= key.items() for row in known):
            continue
        try:
            figures = bench.measure(config)
        except PruningError as error:
            figures = {"error": str(error)}
        append(args.output, key | figures)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def draw(source: Path, picture: Path, of: str) -> None:
    """Markdown tables on stdout, and AP against MACs left as a picture."""
    found = [row for row in read(source) if "error" not in row]
    base = next(row["ap"] for row in found if row["criterion"] == "none")
    found = [row for row in found if row["criterion"] != "none"]
    lefts = sorted({row["left"] for row in found}, reverse=True)
    lines: dict[Line, dict[float, float]] = {}
    for row in found:
        line = (row["criterion"], row["scope"], row["variant"], row["rounds"])
        lines.setdefault(line, {})[row["left"]] = row["ap"]
    columns = "".join(f" | {left:.0%}" for left in lefts)
    print(f"| criterion | scope{columns} |\n|---|---{'|---' * len(lefts)}|")
    for criterion, scope, rounds in dict.fromkeys((c, s, r) for c, s, _, r in lines):
        pairs = [lines.get((criterion, scope, variant, rounds), {}) for variant in ("off", "all")]
        cells = [" → ".join(f"{p[x]:.3f}" for p in pairs if x in p) for x in lefts]
        print(f"| {title(criterion, rounds)} | {scope} | {' | '.join(cells)} |")
    print(f"\n| criterion | compensation{columns} |\n|---|---{'|---' * len(lefts)}|")
    parted = {line[0::3] for line in lines if line[2] == "reconstruct"}
    for (criterion, scope, variant, rounds), values in lines.items():
        if (criterion, rounds) in parted and scope == "global":
            cells = [f"{values[x]:.3f}" if x in values else "–" for x in lefts]
            print(f"| {title(criterion, rounds)} | {variant} | {' | '.join(cells)} |")
    save_picture(lines, base, picture, of)


def title(criterion: str, rounds: int) -> str:
    return f"{criterion}, {rounds} rounds" if rounds > 1 else criterion


def save_picture(lines: dict[Line, dict[float, float]], base: float, path: Path, of: str) -> None:
    """Compensated cuts above, bare ones below, a scope a column."""
    scopes = [scope for scope in SCOPES if any(line[1] == scope for line in lines)]
    rows = {"all": "compensated", "off": "bare cut"}
    figure, axes = plt.subplots(
        2, len(scopes), figsize=(4.2 * len(scopes) + 1.9, 7.6), sharex=True, squeeze=False
    )
    shown = {}
    for (variant, row_title), row in zip(rows.items(), axes, strict=True):
        for axis, scope in zip(row, scopes, strict=True):
            equal: dict[tuple[float, ...], list[str]] = {}
            for (criterion, own, how, rounds), values in lines.items():
                if (own, how) == (scope, variant):
                    (curve,) = axis.plot(
                        [1 - left for left in (1.0, *values)],
                        [base, *values.values()],
                        **style(criterion, rounds),
                    )
                    shown[title(criterion, rounds)] = curve
                    equal.setdefault(tuple(values.values()), []).append(title(criterion, rounds))
            said = [" = ".join(names) for names in equal.values() if len(names) > 1]
            x, y, *corner = (0.03, 0.04, "left", "bottom") if variant == "all" else TOP_RIGHT
            place = dict(zip(("ha", "va"), corner, strict=True))
            axis.text(x, y, "\n".join(said), transform=axis.transAxes, fontsize=10, **place)
            axis.set_title(f"{row_title}, scope {scope}", fontsize=11)
            axis.grid(alpha=0.3)
            # Rows have scales of their own: compensated cuts lie close together.
            axis.set_ylim(0.2 if variant == "all" else -0.02, base + 0.03)
        row[0].set_ylabel("AP50-95 without any training")
    for axis in axes[-1]:
        axis.set_xlabel("fraction of the MACs removed")
    figure.suptitle(of, fontsize=12)
    figure.tight_layout(rect=(0, 0, 1 - 1.7 / figure.get_figwidth(), 0.98))
    order = sorted(shown, key=lambda name: (name == PLAIN, name))
    figure.legend([shown[name] for name in order], order, loc="center right", fontsize=10)
    figure.savefig(path, dpi=90)


def style(criterion: str, rounds: int) -> dict[str, Any]:
    """Colour and marker by criterion; thick lines lie below, so that equal ones can all be seen."""
    number = [PLAIN, *CRITERIA].index(criterion)
    default = rounds > 1
    return {
        "color": "black" if default else COLOURS[number],
        "marker": MARKERS[number],
        "markerfacecolor": "none",
        "linestyle": ":" if criterion == PLAIN else "-",
        "linewidth": 5.5 if default else 4.6 - 0.45 * number,
        "markersize": 13 if default else 11 - 0.7 * number,
        "zorder": 2 if default else 3 + number,
    }


if __name__ == "__main__":
    main()
