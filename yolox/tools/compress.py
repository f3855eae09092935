"""From a trained checkpoint and a target to a small, fine-tuned, exported, measured model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from loguru import logger
from rich.markup import escape
from rich.table import Table

from yolox.exp.load import DEFAULT_MODEL
from yolox.jobs.compress.pipeline import CompressPipeline, plan_compression
from yolox.jobs.compress.recipe import Recipe
from yolox.jobs.compress.record import Record
from yolox.jobs.compress.run import run_stages
from yolox.jobs.compress.settings import CompressSettings
from yolox.jobs.compress.stage import Stage
from yolox.jobs.compress.stages import Processes
from yolox.jobs.compress.verdict import tell_verdicts
from yolox.jobs.evaluate_files import Evaluation
from yolox.jobs.measure import Measured
from yolox.jobs.sensitivity import SensitivityOutcome
from yolox.pruning import PruneRecord
from yolox.report import Report, summary_table
from yolox.tools import bench, cli, eval, prunmodel, report, sensitivity
from yolox.tools.flags import train as train_flags
from yolox.tools.flags.compress import make_parser
from yolox.tools.flags.parts import DEFAULT_EXP
from yolox.tools.processes import start_processes
from yolox.tools.words import command_line
from yolox.utils.choices import SPARSITY_EPOCHS, STEP_EPOCHS
from yolox.utils.dist import get_rank
from yolox.utils.documents import DocumentError, read_yaml
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed
from yolox.utils.logger import setup_logger


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, run what is left to do, print."""
    args = parse(argv)
    pipeline = _plan(args)
    with nullcontext() if args.dry_run else claimed(pipeline.folder):
        stages = pipeline.stages()
        record = pipeline.record(stages)
        _show(stages, record, pipeline.folder)
        if args.dry_run:
            return
        reports: list[Report] = []

        def on_result(stage: Stage, found: object) -> None:
            _tell(pipeline, stage, found)
            if isinstance(found, Report):
                reports.append(found)

        run_stages(stages, record, on_result=on_result)
    for made in reports:
        cli.console().print(summary_table(made))
    tell_verdicts(pipeline.verdict(), reports[0] if reports else None)
    logger.info(f"done: {pipeline.report} has the results")


def _plan(args: argparse.Namespace) -> CompressPipeline:
    exp = cli.load_exp(args)
    source = resolve_weights(args.ckpt or exp.output_folder() / "best_ckpt.pth")
    settings = CompressSettings(
        target=args.target,
        importance=args.importance,
        round_to=args.round_to,
        images=args.images,
        sensitivity=args.sensitivity,
        refit=args.refit,
        steps=args.steps,
        step_epochs=args.step_epochs,
        sparsity=args.sparsity,
        sparsity_epochs=args.sparsity_epochs,
        epochs=args.epochs,
        distill=args.distill,
        formats=tuple(args.formats),
        runtime=args.runtime,
        threads=args.threads,
        openvino_precision=args.openvino_precision,
        device=args.device,
    )
    _tell_idle(args)
    fields = tuple(cli.opts_fields(args).items())
    with cli.telling_whose_data(args, exp):
        return plan_compression(
            source,
            Recipe(exp=exp, named=cli.recipe_words(args), given=fields),
            settings,
            folder=args.output,
            # What --data names is a field of the Exp, which counts by itself.
            origin=args.exp_file or args.name or (DEFAULT_MODEL if args.data else DEFAULT_EXP),
            processes=Processes(
                devices=None,
                launch=_launch,
                log_to=lambda folder: setup_logger(folder, get_rank()),
            ),
            write_line=command_line,
        )


def _launch(words: list[str]) -> bool:
    """Run a training once a device, where there are several; whether it was."""
    return start_processes(train_flags.make_parser().parse_args(words), words, module="train")


def _tell_idle(args: argparse.Namespace) -> None:
    """Warn of flags that no stage reads."""
    sparse = args.sparsity is None and args.sparsity_epochs != SPARSITY_EPOCHS
    steps = args.steps == 1 and args.step_epochs != STEP_EPOCHS
    cli.tell_idle(
        ("--sparsity-epochs", sparse, "there is no sparsity training: give --sparsity"),
        ("--step-epochs", steps, "there is one step: give --steps"),
    )


def _show(stages: Sequence[Stage], record: Record, folder: Path) -> None:
    """The plan, with the time that each stage is expected to take on this machine."""
    table = Table(title=escape(f"Plan, in {folder}"), show_footer=True)
    done = [record.is_done(*pair) for pair in zip(stages, record.marks(stages), strict=True)]
    left = sum(stage.seconds for stage, is_done in zip(stages, done, strict=True) if not is_done)
    table.add_column("stage", footer="left to do")
    table.add_column("about", footer=_minutes(left), justify="right")
    for stage, is_done in zip(stages, done, strict=True):
        table.add_row(stage.name, "done" if is_done else _minutes(stage.seconds))
    console = cli.console()
    console.print(table)
    for stage in stages:  # whole lines, to be copied
        console.print(stage.line(), soft_wrap=True, highlight=False, markup=False)


def _tell(pipeline: CompressPipeline, stage: Stage, found: object) -> None:
    """Print what a stage found, as its own command does."""
    if isinstance(found, SensitivityOutcome):
        sensitivity.show(found, stage.named_recipe())
    elif isinstance(found, PruneRecord):
        prunmodel.show(found)
    elif isinstance(found, Evaluation):
        eval.show(found)
    elif isinstance(found, Measured):
        bench.show(found)
    elif isinstance(found, Report):
        report.show(pipeline.report)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags, those of a configuration file among them.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    args = parser.parse_args(words)
    if args.config is None:
        return args
    flags, fields = _words_of(args, parser)
    # The command line comes later, so it wins.
    args = parser.parse_args([*flags, *words])
    args.opts = [*fields, *args.opts]
    return args


def _words_of(
    args: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[list[str], list[str]]:
    """A YAML file's entries as flags; and those of its ``exp``, which are fields of the Exp.

    Of the recipe, which two flags name, the one on the command line is taken.

    Raises:
        UserError: not readable, not a mapping, or keys that are no flags.
    """
    path = args.config
    try:
        content = read_yaml(path)
    except (OSError, DocumentError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected flags and their values, such as 'target: macs=0.5'")
    fields = content.get("exp") or {}
    if not isinstance(fields, Mapping):
        raise UserError(f"{path}: exp holds fields of the Exp and their values: {fields!r}")
    content = {str(key): value for key, value in content.items() if key != "exp"}
    flags = {flag for action in parser._actions for flag in action.option_strings}
    unknown = [key for key in content if f"--{key}" not in flags or key in ("config", "help")]
    if unknown:
        known = ", ".join(sorted(flag[2:] for flag in flags if flag.startswith("--")))
        raise UserError(f"{path}: unknown {', '.join(unknown)}; there are {known}")
    named = args.exp_file or args.name
    words: list[str] = []
    for key, value in content.items():
        if not (named and key in ("exp_file", "name")):
            words += _flag(key, value, flags)
    return words, [str(word) for pair in fields.items() for word in pair]


def _flag(key: str, value: Any, flags: Collection[str]) -> list[str]:
    if isinstance(value, bool):
        name = f"--{key}" if value else f"--no-{key}"
        return [name] if name in flags else []
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *map(str, values)]


if __name__ == "__main__":
    cli.entry(main, make_parser)
