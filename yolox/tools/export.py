"""Export a checkpoint for another runtime, and keep the file only if it agrees with PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from yolox.data.sources import find_images
from yolox.exp import Exp
from yolox.export import (
    ExportError,
    ExportSettings,
    optional_packages,
)
from yolox.export.settings import OPSET, PACKAGES, SUFFIXES
from yolox.jobs.export import (
    evaluation_images,
    export_checkpoint,
    has_onnxslim,
    with_given_names,
)
from yolox.models import load_model
from yolox.tools import cli
from yolox.tools.flags.export import make_parser
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export."""
    export(make_parser().parse_args(argv))


def export(args: argparse.Namespace) -> None:
    """Load, export, compare, print."""
    optional_packages(*PACKAGES[args.format])
    cli.tell_idle(("-expn", args.ckpt and args.experiment_name, "-c names the checkpoint"))
    exp = _exp(args)
    folder = exp.output_folder(args.experiment_name) if exp else Path()
    source = resolve_weights(args.ckpt or folder / "best_ckpt.pth")
    loaded = with_given_names(load_model(source), source, exp)
    output: Path = args.output_name or _beside(source, args.format)
    settings = ExportSettings(
        format=args.format,
        size=cli.image_size(args.tsize) if args.tsize else loaded.spec.input_size,
        batch_size=args.batch_size,
        dynamic=args.dynamic,
        dynamic_size=args.dynamic_size,
        opset=args.opset or OPSET,
        input_name=args.input,
        output_name=args.output,
        decode=args.decode,
        nms=args.nms_in_graph,
        half=args.half,
        slim=args.format == "onnx" and args.slim and has_onnxslim(),
        conf=args.conf,
        nms_iou=args.nms,
    )
    if args.opset and args.format not in ("onnx", "openvino"):
        raise ExportError(f"{args.format} files have no ONNX opset: leave out --opset")
    export_checkpoint(
        loaded,
        source,
        output,
        settings,
        find_images(args.path) if args.path else evaluation_images(exp),
    )


def _exp(args: argparse.Namespace) -> Exp | None:
    """The Exp where one is named, or is to tell where the checkpoint lies."""
    if not args.ckpt:
        if "test_size" in cli.opts_fields(args):
            raise UserError("--tsize sets the size that is exported: leave out test_size")
        return cli.load_exp(args)
    if others := [
        name for name in cli.opts_fields(args) if name not in ("data_dir", "class_names")
    ]:
        raise UserError(
            "a checkpoint holds all that export takes (--tsize sets the size), and of the Exp only "
            "data_dir is read, for images to compare on, and class_names of a checkpoint without: "
            f"leave out {' '.join(others)}"
        )
    return cli.load_exp(args) if args.exp_file or args.name or args.opts else None


def _beside(source: Path, kind: str) -> Path:
    # ncnn's .bin would otherwise have the name of OpenVINO's.
    ending = f".{kind}" if kind == "ncnn" else ""
    return source.with_name(f"{source.stem}{ending}{SUFFIXES[kind][0]}")


if __name__ == "__main__":
    cli.entry(main, make_parser)
