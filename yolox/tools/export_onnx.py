"""Export a checkpoint to ONNX, and keep the file only if onnxruntime agrees with PyTorch."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from yolox.data import preproc
from yolox.export import ExportError, OnnxSettings, export_onnx, sample_scene
from yolox.export.onnx import OPSET, optional_packages
from yolox.models import load_model
from yolox.tools import cli
from yolox.tools.demo import find_images
from yolox.utils.checkpoint import file_digest
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.make_parser(
        "Export a checkpoint, dense or pruned, to ONNX; the file is run in onnxruntime and kept "
        "if it computes what PyTorch does.",
        "python tools/export_onnx.py -c YOLOX_outputs/yolox_voc_s/pruned.pth "
        "--output-name model.onnx --decode_in_inference",
    )
    parser.add_argument("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
    parser.add_argument(
        "--output-name", type=Path, default=Path("yolox.onnx"), help="file to write"
    )
    graph = parser.add_argument_group("graph")
    graph.add_argument("--input", default="images", help="name of the input")
    graph.add_argument("--output", default="output", help="name of the output")
    graph.add_argument("-o", "--opset", type=cli.positive, default=OPSET, help="ONNX opset")
    graph.add_argument("--batch-size", type=cli.positive, default=1, help="images a run")
    graph.add_argument("--dynamic", action="store_true", help="any number of images a run")
    graph.add_argument(
        "--tsize",
        type=cli.side,
        nargs="+",
        metavar=("H", "W"),
        help="input size, one number for a square (the checkpoint's)",
    )
    graph.add_argument(
        "--decode_in_inference",
        action="store_true",
        help="boxes in pixels, instead of the head's offsets and log sizes",
    )
    graph.add_argument(
        "--slim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="simplify with onnxslim where it is installed",
    )
    graph.add_argument(
        "--no-onnxsim", dest="slim", action="store_false", help="the same as --no-slim"
    )
    check = parser.add_argument_group("check")
    check.add_argument("--path", type=Path, help="image or folder to compare on too")
    check.add_argument(
        "--conf", type=cli.fraction, default=0.3, help="least score; goes into the file"
    )
    check.add_argument(
        "--nms", type=cli.fraction, default=0.45, help="IoU of NMS; goes into the file"
    )
    cli.add_exp_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, export, compare, print."""
    args = make_parser().parse_args(argv)
    optional_packages("onnx", "onnxruntime", "onnxscript")
    source = resolve_weights(args.ckpt or _folder(args) / "best_ckpt.pth")
    loaded = load_model(source)
    output: Path = args.output_name
    if output.exists() and output.samefile(source):
        raise ExportError(f"{output} is the checkpoint itself: choose another --output-name")
    settings = OnnxSettings(
        size=_size(args.tsize) if args.tsize else loaded.spec.input_size,
        batch_size=args.batch_size,
        dynamic=args.dynamic,
        opset=args.opset,
        input_name=args.input,
        output_name=args.output,
        decode=args.decode_in_inference,
        slim=args.slim and _has_onnxslim(),
        conf=args.conf,
        nms=args.nms,
    )
    images = find_images(args.path) if args.path else []
    logger.info(f"exporting {source}: {_what(settings)}")
    parity = export_onnx(
        loaded, output, settings, _batches(images, settings), source_sha256=file_digest(source)
    )
    logger.info(f"onnxruntime and PyTorch, {parity}")
    if not parity.detections:
        logger.info(
            f"no score reached {args.conf}, so only raw outputs were compared: --path with images "
            "of your objects, or a lower --conf, compares detections too"
        )
    logger.info(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")


def _folder(args: argparse.Namespace) -> Path:
    return cli.load_exp(args).output_folder(args.experiment_name)


def _size(sides: Sequence[int]) -> tuple[int, int]:
    if len(sides) > 2:
        raise ExportError(f"--tsize takes height and width, got {' '.join(map(str, sides))}")
    return sides[0], sides[-1]


def _has_onnxslim() -> bool:
    try:
        optional_packages("onnxslim")
    except ExportError:
        logger.info("onnxslim is not installed, so the graph stays as torch wrote it")
        return False
    return True


def _what(settings: OnnxSettings) -> str:
    height, width = settings.size
    return (
        f"{height}×{width}, batch {'of any size' if settings.dynamic else settings.batch_size}, "
        f"opset {settings.opset}, boxes {'decoded' if settings.decode else 'not decoded'}"
    )


def _batches(images: Sequence[Path], settings: OnnxSettings) -> Iterator[Tensor]:
    """The made-up scene and the images, in full batches; pictures come again to fill the last."""
    pictures = itertools.chain([sample_scene(settings.size)], map(_read, images))
    inputs = (torch.from_numpy(preproc(picture, settings.size)[0]) for picture in pictures)
    size = 1 if settings.dynamic else settings.batch_size
    first = None
    while group := list(itertools.islice(inputs, size)):
        first = group[0] if first is None else first
        yield torch.stack((group * size)[:size])
    if settings.dynamic and first is not None:
        yield torch.stack([first, first.flip(-1), first.flip(-2)])


def _read(path: Path) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] | None = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path} cannot be decoded as an image: take it out of --path")
    return image


if __name__ == "__main__":
    cli.entry(main)
