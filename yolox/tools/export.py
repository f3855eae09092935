"""Export a checkpoint for another runtime, and keep the file only if it agrees with PyTorch."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from yolox.data import preproc
from yolox.data.datasets.decoding import read_image
from yolox.data.image_header import ImageError
from yolox.data.sources import find_images
from yolox.exp import Exp
from yolox.exp.follow import with_names
from yolox.export import (
    ExportError,
    ExportSettings,
    export_model,
    optional_packages,
    sample_scene,
)
from yolox.export.settings import OPSET, PACKAGES, SUFFIXES
from yolox.models import LoadedModel, load_model
from yolox.tools import cli
from yolox.tools.flags.export import make_parser
from yolox.utils.checkpoint import file_digest
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError

PICTURES = 32  # most to compare on
SCENE_GROWTH = (32, 64)  # rows and columns more, of a second scene for files of any size


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
    loaded = _named(load_model(source), source, exp)
    output: Path = args.output_name or _beside(source, args.format)
    if output.exists() and output.samefile(source):
        raise ExportError(f"{output} is the checkpoint itself: choose another --output-name")
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
        slim=args.format == "onnx" and args.slim and _has_onnxslim(),
        conf=args.conf,
        nms_iou=args.nms,
    )
    if args.opset and args.format not in ("onnx", "openvino"):
        raise ExportError(f"{args.format} files have no ONNX opset: leave out --opset")
    images = _spread(find_images(args.path) if args.path else _evaluation_images(exp))
    logger.info(f"exporting {source} for {args.format}: {_what(settings)}")
    parity = export_model(
        loaded,
        output,
        settings,
        _batches(images, settings),
        source_sha256=file_digest(source),
    )
    logger.info(f"{args.format} and PyTorch, {parity}")
    if not parity.detections:
        logger.warning(
            f"no score reached {args.conf}, so only raw outputs were compared: --path with images "
            "of your objects, or a lower --conf, compares detections too"
        )
    files = settings.beside(output)
    size = sum(file.stat().st_size for file in files) / 1e6
    others = "".join(f", {file.name}" for file in files[1:])
    logger.info(f"wrote {output}{others} ({size:.1f} MB)")


def _exp(args: argparse.Namespace) -> Exp | None:
    """The Exp where one is named, or is to tell where the checkpoint lies."""
    if not args.ckpt:
        if "test_size" in args.opts[::2]:
            raise UserError("--tsize sets the size that is exported: leave out test_size")
        return cli.load_exp(args)
    if others := [name for name in args.opts[::2] if name not in ("data_dir", "class_names")]:
        raise UserError(
            "a checkpoint holds all that export takes (--tsize sets the size), and of the Exp only "
            "data_dir is read, for images to compare on, and class_names of a checkpoint without: "
            f"leave out {' '.join(others)}"
        )
    return cli.load_exp(args) if args.exp_file or args.name or args.opts else None


def _named(loaded: LoadedModel, source: Path, exp: Exp | None) -> LoadedModel:
    """The model, with the class names that the Exp sets where it has none of its own."""
    names = tuple(exp.class_names) if exp else ()
    if loaded.spec.class_names:
        if exp and "class_names" in exp.given and names != loaded.spec.class_names:
            raise UserError(
                f"{source} names its classes, {', '.join(loaded.spec.class_names)}: leave out "
                "class_names"
            )
        return loaded
    if exp and names:
        return with_names(loaded, exp)
    logger.warning(
        f"{source} does not name its {loaded.spec.num_classes} classes, and neither will the file: "
        "to name them, give class_names NAME,NAME,… at the end of the command, in their order"
    )
    return loaded


def _evaluation_images(exp: Exp | None) -> list[Path]:
    """Those of the Exp, where there is one and its data are there."""
    if exp is None:
        return []
    try:
        samples = getattr(exp.get_eval_dataset(), "samples", ())
    except (UserError, OSError) as error:
        logger.info(f"no evaluation images to compare on ({error})")
        return []
    return [sample.path for sample in samples]


def _spread(images: Sequence[Path]) -> list[Path]:
    """At most `PICTURES`, from first to last."""
    if len(images) <= PICTURES:
        return list(images)
    logger.info(f"comparing on {PICTURES} of {len(images)} images")
    return [images[round(n * (len(images) - 1) / (PICTURES - 1))] for n in range(PICTURES)]


def _beside(source: Path, kind: str) -> Path:
    # ncnn's .bin would otherwise have the name of OpenVINO's.
    ending = f".{kind}" if kind == "ncnn" else ""
    return source.with_name(f"{source.stem}{ending}{SUFFIXES[kind][0]}")


def _has_onnxslim() -> bool:
    try:
        optional_packages("onnxslim")
    except ExportError:
        logger.info("onnxslim is not installed, so the graph stays as torch wrote it")
        return False
    return True


def _what(settings: ExportSettings) -> str:
    height, width = settings.size
    parts = [
        f"any size, tried at {height}×{width}" if settings.dynamic_size else f"{height}×{width}",
        f"batch {'of any size' if settings.dynamic else settings.batch_size}",
        f"opset {settings.opset}" if settings.format == "onnx" else "",
        "float16 weights" if settings.half else "",
        f"boxes {'decoded' if settings.decode else 'not decoded'}",
        "NMS in the graph" if settings.nms else "",
    ]
    return ", ".join(part for part in parts if part)


def _batches(images: Sequence[Path], settings: ExportSettings) -> Iterator[Tensor]:
    """The made-up scene and the images, in full batches; pictures come again to fill the last."""
    pictures = itertools.chain([sample_scene(settings.size)], _decoded(images))
    inputs = (torch.from_numpy(preproc(picture, settings.size)[0]) for picture in pictures)
    size = 1 if settings.dynamic else settings.batch_size
    first = None
    while group := list(itertools.islice(inputs, size)):
        first = group[0] if first is None else first
        yield torch.stack((group * size)[:size])
    if settings.dynamic and first is not None:
        yield torch.stack([first, first.flip(-1), first.flip(-2)])
    if settings.dynamic_size:
        height, width = (
            side + more for side, more in zip(settings.size, SCENE_GROWTH, strict=True)
        )
        larger = torch.from_numpy(preproc(sample_scene((height, width)), (height, width))[0])
        yield larger.expand(size, -1, -1, -1).contiguous()


def _decoded(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Pictures; those that cannot be decoded are named and left out, unless it is all of them."""
    left = len(paths)
    for path in paths:
        try:
            yield read_image(path)
        except ImageError as error:
            left -= 1
            if not left:
                raise UserError(f"{path} {error.what}: give --path another image") from None
            logger.warning(f"{path} {error.what}: compared without it")


if __name__ == "__main__":
    cli.entry(main)
