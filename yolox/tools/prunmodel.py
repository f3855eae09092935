"""Save a whole model, list its prunable convolutions, or prune it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from rich.console import Console
from rich.table import Table
from torch import nn

from yolox.core import make_fabric
from yolox.exp import Exp
from yolox.exp.prune import Calibration, PruneJob, calibrate, probe, prune, total_loss
from yolox.exp.steps import prune_in_steps
from yolox.models import LoadedModel, checkpoint_payload, load_model
from yolox.pruning import (
    CRITERIA,
    PruneConfig,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
    ThresholdHint,
    plan_pruning,
    stages_table,
    trace_groups,
)
from yolox.pruning.config import AGGREGATES, NORMALIZATIONS, PRICES, SCOPES
from yolox.tools import cli
from yolox.utils.checkpoint import save_checkpoint
from yolox.utils.download import resolve_weights
from yolox.utils.model_utils import count_macs, count_params

ROUND_TO = 8  # runtimes are slow on odd channel counts
MODES = ("save", "list", "conv", "layer", "global")
IMAGES = 64  # for reconstruction
HARM = 1.5  # times the loss before: the detector is likely to need training first


def save_whole_model(loaded: LoadedModel, output: Path) -> Path:
    """Write structure and weights as one safe file, without training state; returns its path."""
    save_checkpoint(output, checkpoint_payload(loaded.model, loaded.spec, loaded.pruning))
    return output


def conv_pruning(
    loaded: LoadedModel,
    layers: Sequence[str],
    ch_sparsity: float,
    *,
    calibration: Calibration | None = None,
    **options: Any,
) -> PruneResult:
    """Prune the named convolutions, each by the ratio; `options` are `PruneConfig` fields."""
    config = PruneConfig(mode="conv", layers=tuple(layers), ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, calibration)


def layer_pruning(
    loaded: LoadedModel,
    layers: Sequence[str],
    ch_sparsity: float,
    *,
    calibration: Calibration | None = None,
    **options: Any,
) -> PruneResult:
    """Prune all convolutions whose names match a pattern, each by the ratio."""
    config = PruneConfig(mode="layer", layers=tuple(layers), ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, calibration)


def global_pruning(
    loaded: LoadedModel,
    ch_sparsity: float,
    *,
    calibration: Calibration | None = None,
    **options: Any,
) -> PruneResult:
    """Prune the least important channels of the whole model."""
    config = PruneConfig(mode="global", ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, calibration)


def list_layers(loaded: LoadedModel) -> Table:
    """Every prunable convolution: channels, the group it is coupled in, its share of the MACs."""
    groups = trace_groups(loaded.model, probe())
    macs = count_macs(loaded.model, torch.zeros(1, 3, *loaded.spec.input_size))
    table = Table(title="Prunable convolutions")
    for column in ("name", "channels", "coupled with", "MACs"):
        table.add_column(column, justify="left" if column in ("name", "coupled with") else "right")
    rows = {
        member.name: (group, member.index.size) for group in groups for member in group.producers
    }
    for name in dict(loaded.model.named_modules()):
        if name in rows:
            group, channels = rows[name]
            others = len(group.producers) - 1
            coupled = f"{group.name} (+{others})" if others else "–"
            table.add_row(name, str(channels), coupled, f"{macs[name] / macs['']:.1%}")
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, do what the mode says, print."""
    args = _parse(argv)
    exp = cli.load_exp(args)
    folder = exp.output_folder()
    source = resolve_weights(args.ckpt or folder / "best_ckpt.pth")
    loaded = load_model(source)
    console = Console(width=None if Console().is_terminal else 160)
    if args.mode == "save":
        output = save_whole_model(loaded, args.output or folder / "whole_model.pth")
        logger.info(f"whole model ({count_params(loaded.model):,} parameters) in {output}")
        return
    if args.mode == "list":
        console.print(list_layers(loaded))
        return
    output = args.output or folder / "pruned.pth"
    if output.resolve() == source.resolve():
        raise PruningError(f"{output} is the checkpoint to prune: name another file with -o")
    if output.is_dir():
        raise PruningError(f"{output} is a folder: name a file in it with -o")
    job = _make_job(args, exp, loaded, source, output, sys.argv[1:] if argv is None else argv)
    if args.dry_run:
        _write_plan(job)
        return
    if args.steps > 1:
        fabric = make_fabric(devices=1)
        fabric.launch()
        record = prune_in_steps(
            job,
            exp,
            fabric,
            steps=args.steps,
            epochs=args.step_epochs,
            keep=tuple(args.opts[::2]),
            on_hint=_show_hint,
        )
    else:
        record = job.run(_show_hint)
    _print(record, console)
    logger.info(
        f"fine-tune it: python tools/train.py -f {args.exp_file or cli.DEFAULT_EXP} -c {output}"
    )


def _show_hint(hint: ThresholdHint) -> None:
    for line in hint.lines():
        logger.info(line)


def _make_job(
    args: argparse.Namespace,
    exp: Exp,
    loaded: LoadedModel,
    source: Path,
    output: Path,
    argv: Sequence[str],
) -> PruneJob:
    config, plan = _config(args, exp.seed or 0), None
    if args.plan:
        plan = PruningPlan.load(args.plan).without_layers(
            trace_groups(loaded.model, probe()), config.ignore
        )
    elif not CRITERIA[config.importance].needs_data:
        logger.warning(
            f"importance {config.importance} looks at weights alone, and a detector can lose all "
            "its AP to it (docs/results.md): taylor measures on your images"
        )
    config, calibration = calibrate(
        exp,
        loaded.spec,
        config,
        args.images,
        keep=args.opts[::2],
        optional=args.reconstruct is None and args.bn_recalibrate is None and not args.eval,
    )
    return PruneJob(
        loaded=loaded,
        source=source,
        output=output,
        config=config,
        calibration=calibration,
        images=args.images,
        plan=plan,
        evaluate=_evaluation(exp) if args.eval else None,
        time_it=args.latency,
        command=f"python tools/prunmodel.py {shlex.join(map(str, argv))}",
    )


def _evaluation(exp: Exp) -> Any:
    evaluator = exp.get_evaluator(16)

    def evaluate(model: nn.Module) -> tuple[float, float]:
        result = evaluator.run(model)
        return result.ap50_95, result.ap50

    return evaluate


def _config(args: argparse.Namespace, seed: int) -> PruneConfig:
    """The flags as a config.

    Raises:
        PruningError: flags that contradict each other.
    """
    budgets = {
        "--ch-sparsity": args.ch_sparsity is not None,
        "--target": args.target is not None,
        "--layer-sparsity": bool(args.layer_sparsity),
        "--plan": args.plan is not None,
    }
    given = [flag for flag, is_given in budgets.items() if is_given]
    if len(given) > 1:
        raise PruningError(f"{' and '.join(given)} each say how much goes: give one of them")
    if args.steps > 1 and (args.plan or args.dry_run):
        raise PruningError("--steps plans each round on what training left: no --plan or --dry-run")
    if args.plan and args.layers:
        raise PruningError("--plan says which layers lose what: it goes without --layers")
    ratios = _layer_ratios(args.layer_sparsity)
    fields = {
        "ch_sparsity": args.ch_sparsity,
        "reconstruct": IMAGES if args.reconstruct is None else args.reconstruct,
        "bn_recalibrate": args.bn_recalibrate or 0,
    }
    return PruneConfig(
        mode="layer" if ratios else args.mode,
        target=args.target,
        layers=tuple(args.layers),
        layer_sparsity=ratios,
        ignore=tuple(args.ignore),
        **{name: value for name, value in fields.items() if value is not None},
        **{name: getattr(args, name) for name in _SAME_NAMES},
        seed=seed,
    )


_SAME_NAMES = (
    *("scope", "importance", "aggregate", "normalize", "per", "rounds"),
    *("round_to", "min_channels", "max_sparsity", "absorb"),
)


def _layer_ratios(words: Sequence[str]) -> dict[str, float]:
    """``PATTERN=RATIO`` words, or one JSON file of them as tools/sensitivity.py writes."""
    if len(words) == 1 and words[0].endswith(".json"):
        try:
            content = json.loads(Path(words[0]).read_text(encoding="utf-8"))
            if not content:
                raise ValueError("it is empty")
            return {str(pattern): float(ratio) for pattern, ratio in content.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise PruningError(
                f"cannot read layer ratios from {words[0]}: {error}; expected a JSON object "
                'such as {"backbone.*": 0.3}'
            ) from error
    ratios = {}
    for word in words:
        pattern, sign, ratio = word.rpartition("=")
        try:
            ratios[pattern] = float(ratio)
        except ValueError:
            sign = ""
        if not sign or not pattern:
            raise PruningError(
                f"--layer-sparsity takes PATTERN=RATIO, such as 'backbone.*=0.3': {word!r}"
            )
    return ratios


def _write_plan(job: PruneJob) -> None:
    groups = trace_groups(job.loaded.model, probe())
    plan = job.plan or plan_pruning(
        job.loaded.model,
        groups,
        job.config,
        batches=job.scored,
        loss=total_loss,
        count_input=torch.zeros(1, 3, *job.loaded.spec.input_size),
        on_hint=_show_hint,
    )
    path = job.output.with_suffix(".plan.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.save(path)
    slots = sum(map(len, plan.removed.values()))
    logger.info(
        f"nothing cut: the plan to remove {slots} channels from {len(plan.removed)} groups is in "
        f"{path}; carry it out with --plan {path}"
    )


def _print(record: PruneRecord, console: Console) -> None:
    report = record.report
    console.print(report.table())
    if record.stages:
        console.print(stages_table(record.stages))
        before, after = record.stages[0].loss, record.stages[-1].loss
        if before and after and after > HARM * before:
            logger.warning(
                f"the loss on training images went from {before:.2f} to {after:.2f}: expect little "
                "of the detector before it is fine-tuned, or remove less"
            )
    logger.info(
        f"verified: pruned and masked outputs differ by {report.difference:.0e} (relative, float64)"
    )
    if record.latency_ms:
        old, new = record.latency_ms
        logger.info(
            f"latency {old:.1f} → {new:.1f} ms ({old / new:.2f} × as fast), {record.machine}"
        )
    if record.missed:
        logger.warning(record.missed)
    logger.info(
        f"params {report.params[0]:,} → {report.params[1]:,}, "
        f"MACs {report.macs[0]:,} → {report.macs[1]:,}, written to {record.output}"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.make_parser(
        "Save a whole model, list its prunable convolutions, or prune it.",
        "python tools/prunmodel.py --mode global --ch-sparsity 0.4",
    )
    defaults = PruneConfig()
    add = parser.add_argument
    add("--mode", choices=MODES, default="global", help="what to do")
    add("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    add("-o", "--output", type=Path, help="file to write (in the Exp's output folder)")

    budget = parser.add_argument_group("how much (one of these)")
    add = budget.add_argument
    add(
        "--ch-sparsity",
        type=float,
        help=f"fraction of channels to go ({defaults.ch_sparsity} if none of these is given)",
    )
    add("--target", help="what shall remain: macs=0.5 or params=0.5")
    add(
        "--layer-sparsity",
        nargs="+",
        default=[],
        metavar="PATTERN=RATIO",
        help="a ratio for each pattern, the last that matches; or a JSON file of them",
    )
    add("--plan", type=Path, help="a saved plan, edited or not, instead of a new one")

    which = parser.add_argument_group("which")
    add = which.add_argument
    add("--layers", nargs="+", default=[], help="names (mode conv) or patterns (mode layer)")
    add("--ignore", nargs="+", default=[], help="names or patterns of layers that stay whole")
    add("--importance", choices=tuple(CRITERIA), default=defaults.importance, help="criterion")
    add("--scope", choices=SCOPES, help="how layers share the loss (global; by ratio uniform)")
    add("--aggregate", choices=AGGREGATES, default=defaults.aggregate, help="over coupled layers")
    add("--normalize", choices=NORMALIZATIONS, help="scores within a group (the criterion's)")
    add("--per", choices=PRICES, help="what a score is divided by (the criterion's)")
    add("--images", type=cli.positive, default=64, help="training images to score on")
    add(
        "--rounds",
        type=cli.positive,
        default=defaults.rounds,
        help="rounds of scoring, each with the channels of the earlier ones silenced",
    )
    add("--round-to", type=cli.positive, default=ROUND_TO, help="channels left: a multiple of it")
    add("--min-channels", type=int, default=defaults.min_channels, help="least of a layer")
    add("--max-sparsity", type=float, default=defaults.max_sparsity, help="most a layer may lose")

    after = parser.add_argument_group("accuracy kept without training")
    add = after.add_argument
    add(
        "--absorb",
        action=argparse.BooleanOptionalAction,
        default=defaults.absorb,
        help="constants of removed channels go into the next layer",
    )
    add("--reconstruct", type=int, help=f"images to refit layers on, 0 for none ({IMAGES})")
    add("--bn-recalibrate", type=int, help="images to correct batch norms on, 0 for none (0)")

    iterate = parser.add_argument_group("in steps, with fine-tuning between them")
    add = iterate.add_argument
    add("--steps", type=cli.positive, default=1, help="rounds of pruning; goes on if stopped")
    add("--step-epochs", type=cli.positive, default=10, help="epochs of training between two")

    out = parser.add_argument_group("what is measured and written")
    add = out.add_argument
    add("--eval", action="store_true", help="AP before, after the cut, and compensated")
    add(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the model before and after",
    )
    add("--dry-run", action="store_true", help="write the plan, cut nothing")
    cli.add_exp_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.entry(main)
