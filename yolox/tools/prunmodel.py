"""Save a whole model, list its prunable convolutions, or prune it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from rich.table import Table
from torch import nn

from yolox.exp import Exp
from yolox.exp.follow import with_names
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.calibration import Calibration, probe
from yolox.jobs.prune import (
    PruneJob,
    is_spoilt_by_tuning,
    prepare_pruning,
    prune,
    require_own,
    show_hint,
    spare_sensitive,
)
from yolox.models import LoadedModel, checkpoint_payload, load_model
from yolox.pruning import (
    Group,
    PruneConfig,
    PruneRecord,
    PruneResult,
    PruningError,
    PruningPlan,
    stages_table,
    trace_groups,
)
from yolox.pruning.idle import tell_idle_fields
from yolox.tools import cli
from yolox.tools.flags.prunmodel import STEP_EPOCHS, make_parser
from yolox.tools.prune_args import given_fields, latency_settings, prune_config
from yolox.tools.words import command_line
from yolox.utils.checkpoint import load_checkpoint, save_checkpoint
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.timing import compared

FINETUNE_EPOCHS = 20  # proposed where the Exp has none: those of the measurements
# What the modes that prune nothing read, beside the Exp.
_READ = {"save": ("mode", "ckpt", "output", "overwrite"), "list": ("mode", "ckpt")}
LOSS_WARNING_RATIO = 1.5  # times the loss before: the detector is likely to need training first


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


def list_layers(model: nn.Module, size: tuple[int, int], groups: Sequence[Group]) -> Table:
    """Every prunable convolution: channels, what it is coupled with, its share of the MACs.

    Args:
        model: not touched.
        size: (height, width) that MACs are counted at.
        groups: of the model.
    """
    macs = count_macs(model, torch.zeros(1, 3, *size))
    table = Table(title="Prunable convolutions")
    for column in ("name", "channels", "coupled with", "MACs"):
        table.add_column(column, justify="left" if column in ("name", "coupled with") else "right")
    rows = {
        member.name: (group, member.index.size) for group in groups for member in group.producers
    }
    for name in dict(model.named_modules()):
        if name in rows:
            group, channels = rows[name]
            others = [member.name for member in group.producers if member.name != name]
            more = f" (+{len(others) - 1})" if len(others) > 1 else ""
            coupled = f"{others[0]}{more}" if others else "–"
            table.add_row(name, str(channels), coupled, f"{macs[name] / macs['']:.1%}")
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, do what the mode says, print."""
    parser = make_parser()
    args = parser.parse_args(argv)
    exp = cli.load_exp(args)
    if args.mode in _READ:
        cli.tell_unread(args, parser, _READ[args.mode], f"--mode {args.mode} prunes nothing")
        tell_idle(exp, idle_without_training(exp, evaluates=False))
    folder = exp.output_folder()
    source = resolve_weights(args.ckpt or folder / "best_ckpt.pth")
    loaded = load_model(source)
    if args.mode == "save":
        if "class_names" in exp.given:
            loaded = with_names(loaded, exp)
        output = args.output or folder / "whole_model.pth"
        if output.is_file() and not (args.overwrite or _is_saved(output, loaded)):
            raise PruningError(
                f"{output} already exists, and does not hold this model: name another file as "
                "`output`, or replace it with `overwrite=True`"
            )
        save_whole_model(loaded, output)
        logger.info(f"whole model ({count_params(loaded.model):,} parameters) in {output}")
        return
    if args.mode == "list":
        model = loaded.model
        groups = trace_groups(model, probe())
        cli.console().print(list_layers(model, loaded.spec.input_size, groups))
        return
    output = args.output or folder / "pruned.pth"
    if output.resolve() == source.resolve():
        raise PruningError(f"{output} is the checkpoint to prune: name another file with -o")
    if output.is_dir():
        raise PruningError(f"{output} is a folder: name a file in it with -o")
    if not (args.overwrite or args.dry_run):
        require_own(output, source, loaded, steps=args.steps)
    _tell_idle(args, exp)
    claim = claimed(output.parent, PruningError, name=output.name)
    with cli.telling_whose_data(args, exp), claim:
        _prune(args, exp, loaded, source, output, sys.argv[1:] if argv is None else argv)


def _prune(
    args: argparse.Namespace,
    exp: Exp,
    loaded: LoadedModel,
    source: Path,
    output: Path,
    argv: Sequence[str],
) -> None:
    job = _make_job(args, exp, loaded, source, output, argv)
    if args.dry_run:
        job.write_plan(show_hint)
        return
    if args.steps == 1 and not args.overwrite:  # steps record in their folder what was asked for
        job.require_own_request()
    if args.steps > 1:  # what trains takes a second to import, which one cut does not need
        from yolox.core import make_fabric
        from yolox.jobs.prune_steps import prune_in_steps

        fabric = make_fabric(devices=1, device=args.device)
        fabric.launch()
        record = prune_in_steps(
            job,
            exp,
            fabric,
            steps=args.steps,
            epochs=args.step_epochs,
            on_hint=show_hint,
        )
    else:
        record = job.run(show_hint)
    show(record)
    kept = ("finetune_act", "") if is_spoilt_by_tuning(job.config, exp, loaded) else ()
    words = (*cli.recipe_words(args), "-c", output, *tuning_words(exp, loaded.recipe), *kept)
    logger.info(f"fine-tune it: {command_line('finetune', *words)}")


def tuning_words(exp: Exp, recipe: Mapping[str, Any]) -> tuple[object, ...]:
    """Words of a command line that fine-tunes in batches and at a size as the model was trained.

    Args:
        exp: what the words change.
        recipe: of the run that trained the model; empty if not known.
    """
    batch, size = recipe.get("batch_size"), recipe.get("input_size")
    words: list[object] = []
    if batch and batch != exp.batch_size:
        words += ["-b", batch]
    if not exp.finetune_epochs:
        words += ["max_epoch", FINETUNE_EPOCHS]
    if size and tuple(size) != tuple(exp.input_size):
        words += ["input_size", ",".join(map(str, size))]
    return tuple(words)


def _is_saved(output: Path, loaded: LoadedModel) -> bool:
    """Whether a file holds this model and nothing else."""
    payload = checkpoint_payload(loaded.model, loaded.spec, loaded.pruning)
    try:
        there = load_checkpoint(output)
    except UserError:
        return False
    if there.keys() != {"format", "version", *payload}:
        return False
    own, weights = payload.pop("model"), there["model"]
    return (
        all(there[name] == value for name, value in payload.items())
        and weights.keys() == own.keys()
        and all(torch.equal(weights[name], own[name]) for name in own)
    )


def _tell_idle(args: argparse.Namespace, exp: Exp) -> None:
    """Warn of what is given and does nothing."""
    if args.steps == 1:
        cases = idle_without_training(exp, kept=["finetune_act"], evaluates=args.eval)
        tell_idle(exp, cases)
    steps = args.step_epochs != STEP_EPOCHS and args.steps == 1
    cli.tell_idle(("--step-epochs", steps, "there is one step: give --steps"))


def _make_job(
    args: argparse.Namespace,
    exp: Exp,
    loaded: LoadedModel,
    source: Path,
    output: Path,
    argv: Sequence[str],
) -> PruneJob:
    config, plan = prune_config(args, exp.seed or 0), None
    if args.spare:
        config = spare_sensitive(config, loaded, args.spare)
    tell_idle_fields(config, given_fields(args, make_parser()), planned=args.plan is not None)
    if args.plan:
        plan = PruningPlan.load(args.plan)
    return prepare_pruning(
        loaded,
        source,
        exp,
        config,
        output,
        images=args.images,
        plan=plan,
        evaluate=args.eval,
        time_it=args.latency,
        latency=latency_settings(args),
        optional=not (args.reconstruct or args.bn_recalibrate or args.eval),
        command=command_line("prunmodel", *argv),
        device=args.device,
    )


def _left(counts: tuple[int, int]) -> str:
    return f"{counts[1] / counts[0]:.0%} left"


def show(record: PruneRecord) -> None:
    """Print what went and what it bought."""
    report, console = record.report, cli.console()
    if record.slower:
        logger.warning(record.slower)
    console.print(report.table())
    if record.stages:
        console.print(stages_table(record.stages))
        before, after = record.stages[0].loss, record.stages[-1].loss
        if before is not None and after is not None and not after <= LOSS_WARNING_RATIO * before:
            logger.warning(
                f"the loss on training images went from {before:.2f} to {after:.2f}: expect little "
                "of the detector before it is fine-tuned, or remove less"
            )
    logger.info(
        "verified: the outputs of the pruned model and of the original with those channels "
        f"silenced differ by {report.difference:.0e} (relative, float64)"
    )
    if record.latency_ms:
        old, new = record.latency_ms
        logger.info(
            f"latency {old:.2f} → {new:.2f} ms ({compared(old, new)}) in {record.runtime}, "
            f"{record.machine}"
        )
    if record.latency and record.latency.target:
        level = "INFO" if record.latency.met else "WARNING"
        logger.log(level, record.latency.outcome)
    if record.missed:
        logger.warning(record.missed)
    logger.info(
        f"params {report.params[0]:,} → {report.params[1]:,} ({_left(report.params)}), "
        f"MACs {report.macs[0]:,} → {report.macs[1]:,} ({_left(report.macs)}), "
        f"written to {record.output}"
    )


if __name__ == "__main__":
    cli.entry(main, make_parser)
