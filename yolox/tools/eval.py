"""Evaluate a checkpoint, or a file exported from one, on a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from loguru import logger

from yolox.core import make_fabric
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.export import is_exported
from yolox.export.runtime import refuse_for_exported
from yolox.jobs.evaluate_files import EvalSettings, Evaluation, evaluate_and_write
from yolox.tools import cli
from yolox.tools.flags.eval import make_parser
from yolox.tools.processes import join_machines
from yolox.tools.words import called, command_line
from yolox.utils.device import half_precision
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print."""
    args = make_parser().parse_args(argv)
    _refuse(args)
    exp = cli.load_exp(args)
    join_machines(args)
    folder = exp.output_folder(args.experiment_name)
    source: Path = args.ckpt or folder / "best_ckpt.pth"
    fabric = make_fabric(
        devices=1 if args.speed or is_exported(source) else args.devices,
        num_nodes=args.num_machines,
        precision="fp32",
        device="cpu" if is_exported(source) else args.device,
    )
    fabric.launch()
    if args.seed is not None:
        torch.manual_seed(args.seed)
    if is_exported(source):
        flags = {
            "--fuse": args.fuse,
            "--fp16": args.fp16,
            f"--precision {args.precision}": args.precision != "fp32",
        }
        refuse_for_exported(source, flags)
    else:
        source = resolve_weights(source)
    if fabric.is_global_zero:
        tell_idle(exp, idle_without_training(exp, test=args.test))
    with cli.telling_whose_data(args, exp):
        evaluation = evaluate_and_write(
            source,
            exp,
            eval_settings(args, fabric.device, folder / "eval" / source.stem),
            fabric,
            command=command_line("eval", *(sys.argv[1:] if argv is None else argv)),
        )
    if evaluation is not None:
        show(evaluation, order=args.sort)


def show(evaluation: Evaluation, *, order: Literal["class", "ap", "objects"] = "class") -> None:
    """Print the figures, and say what was written."""
    settings, best = evaluation.settings, evaluation.best
    if settings.detections:
        logger.info(f"{evaluation.rows:,} detections in {settings.detections}")
    logger.info("\n" + evaluation.result.summary(order=order))
    if settings.speed:
        logger.info(_speed(evaluation))
    if settings.plots is not None:
        if best:
            logger.info(
                f"best mean F1 at IoU 0.5: {best.f1:.3f} with score ≥ {best.score:g} "
                f"(precision {best.precision:.3f}, recall {best.recall:.3f})"
            )
        logger.info(f"figures and pictures in {settings.plots}")


def _refuse(args: argparse.Namespace) -> None:
    if args.trt:
        raise UserError(
            "--trt: TensorRT is not supported; evaluate the checkpoint without it, and convert the "
            f"file of {called('export')} with TensorRT's own tools"
        )
    if args.openvino_precision != "f32" and (args.ckpt is None or args.ckpt.suffix != ".xml"):
        raise UserError("--openvino-precision is of OpenVINO's files (.xml): leave it out")
    cli.refuse_both(args, ("--tsize", "test_size"), ("--conf", "test_conf"), ("--nms", "nmsthre"))
    cli.one_precision(args, "fp32")
    if args.speed and ((args.devices or 1) > 1 or args.num_machines > 1):
        raise UserError("--speed times one process: leave out -d and --num_machines")


def eval_settings(args: argparse.Namespace, device: torch.device, folder: Path) -> EvalSettings:
    """The flags as settings; pictures by default in `folder`."""
    precision = args.precision
    if args.fp16:
        precision = half_precision(device)
    plots = None
    if args.plots is not None:
        plots = Path(args.plots) if args.plots else folder
    return EvalSettings(
        batch_size=args.batch_size,
        conf=args.conf,
        nms=args.nms,
        size=(args.tsize, args.tsize) if args.tsize else None,
        precision=precision,
        fuse=args.fuse,
        legacy=args.legacy,
        test=args.test,
        speed=args.speed,
        whole_images=args.whole_images,
        openvino_precision=args.openvino_precision,
        device=args.device,
        plots=plots,
        detections=args.save_detections,
    )


def _speed(evaluation: Evaluation) -> str:
    about, timing = evaluation.about, evaluation.result.timing
    height, width = about["test_size"]
    images_per_s = 1000 / (timing.forward_ms + timing.postprocess_ms)
    return (
        f"speed at batch 1, {height}×{width}, {about['precision']}: forward "
        f"{timing.forward_ms:.2f} ms, NMS {timing.postprocess_ms:.2f} ms, {images_per_s:.1f} "
        f"images/s (mean of {timing.images} images after one to warm up) on {about['machine']}"
    )


if __name__ == "__main__":
    cli.entry(main, make_parser)
