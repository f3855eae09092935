"""Prune a detector of Ultralytics."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from loguru import logger

from yolox.jobs.prune import show_hint
from yolox.pruning import PruneConfig, PruningError, PruningPlan
from yolox.pruning.idle import tell_idle_fields
from yolox.tools import cli
from yolox.tools.flags.ultralytics_prune import make_parser
from yolox.tools.prune_args import given_fields, latency_settings, prune_config
from yolox.tools.prunmodel import list_layers, show
from yolox.tools.words import command_line
from yolox.ultralytics.installed import begin_safely
from yolox.utils.device import resolve_device
from yolox.utils.locks import claimed

EVAL_BATCH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, do what the mode says, print."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.mode == "list":
        cli.tell_unread(args, parser, ("mode", "model", "imgsz"), "--mode list prunes nothing")
        config = PruneConfig()
    else:
        config = prune_config(args, args.seed)
        tell_idle_fields(config, given_fields(args, parser), planned=args.plan is not None)
    if args.eval and args.data is None:
        raise PruningError("--eval measures AP on a data set: give --data my.yaml")
    device = resolve_device(args.device)
    begin_safely()
    # Only now: all of these import Ultralytics.
    from yolox.ultralytics.data import average_precision, calibrate
    from yolox.ultralytics.detector import Detector, trained_side
    from yolox.ultralytics.files import plan_from, read_detector
    from yolox.ultralytics.job import DetectorJob

    model = read_detector(args.model)
    side = args.imgsz or trained_side(model)
    if args.mode == "list":
        detector = Detector(model)
        cli.console().print(list_layers(detector.model, (side, side), detector.groups))
        return
    output = args.output or args.model.with_name(f"{args.model.stem}_pruned.pt")
    _require_output(output, args.model)
    there = None
    if output.exists() and not (args.overwrite or args.dry_run):
        there = plan_from(output, args.model)
        if there is None:
            raise PruningError(
                f"{output} already exists, and was not pruned from {args.model} as it is now, or "
                "trained since: name another file as `output`, or replace it with `overwrite=True`"
            )
    with claimed(output.parent, PruningError, name=output.name):
        config, calibration = calibrate(
            model, args.data, config, args.images, side, scores=args.plan is None
        )
        evaluate = None
        if args.eval:
            evaluate = partial(
                average_precision, source=args.data, size=side, batch=EVAL_BATCH, device=device
            )
        job = DetectorJob(
            model=model,
            source=args.model,
            output=output,
            config=config,
            calibration=calibration,
            images=args.images,
            size=(side, side),
            evaluate=evaluate,
            plan=None if args.plan is None else PruningPlan.load(args.plan),
            time_it=args.latency,
            latency=latency_settings(args),
            command=command_line("ultralytics_prune", *(sys.argv[1:] if argv is None else argv)),
            device=device,
        )
        if args.dry_run:
            job.write_plan(show_hint)
            return
        if there:
            job.require_repeat(there)
        show(job.run(show_hint))
    _tell_next(args, output)


def _require_output(output: Path, source: Path) -> None:
    if output.suffix != ".pt":
        raise PruningError(f"{output}: Ultralytics reads models from .pt files: name one with -o")
    if output.resolve() == source.resolve():
        raise PruningError(f"{output} is the model to prune: name another file with -o")
    if output.is_dir():
        raise PruningError(f"{output} is a folder: name a file in it with -o")


def _tell_next(args: argparse.Namespace, output: Path) -> None:
    data = f"data={args.data or 'my.yaml'}"
    logger.info(f"fine-tune it: {command_line('ultralytics_train', output, data, 'epochs=100')}")


if __name__ == "__main__":
    cli.entry(main, make_parser)
