"""From a checkpoint to a file for another runtime, compared on real pictures before it is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from yolox.data import preproc
from yolox.data.decoding import read_image
from yolox.data.image_header import ImageError
from yolox.exp import Exp
from yolox.exp.follow import with_names
from yolox.export import (
    ExportError,
    ExportSettings,
    Parity,
    export_model,
    optional_packages,
    sample_scene,
)
from yolox.models import LoadedModel
from yolox.utils.checkpoint import file_digest
from yolox.utils.errors import UserError

MAX_PICTURES = 32  # most to compare on
SCENE_GROWTH = (32, 64)  # rows and columns more, of a second scene for files of any size


def export_checkpoint(
    loaded: LoadedModel,
    source: Path,
    output: Path,
    settings: ExportSettings,
    images: Sequence[Path] = (),
) -> Parity:
    """Write a model for another runtime once it computes the same there, and say so.

    Args:
        loaded: the model.
        source: its file.
        output: the file that one opens.
        settings: see there.
        images: pictures to compare on, beside a made-up scene.

    Raises:
        ExportError: see `yolox.export.export_model`; or the output is the checkpoint itself.
    """
    if output.exists() and output.samefile(source):
        raise ExportError(f"{output} is the checkpoint itself: name another file")
    chosen = evenly_spread(images)
    logger.info(f"exporting {source} for {settings.format}: {_what(settings)}")
    parity = export_model(
        loaded,
        output,
        settings,
        _batches(chosen, settings),
        source_sha256=file_digest(source),
    )
    logger.info(f"{settings.format} against PyTorch on {parity}")
    if not parity.detections:
        logger.warning(
            f"no score reached {settings.conf}, so only raw outputs were compared: `images` of "
            "your objects, or a lower `conf`, compare detections too"
        )
    files = settings.beside(output)
    size = sum(file.stat().st_size for file in files) / 1e6
    others = "".join(f", {file.name}" for file in files[1:])
    logger.info(f"wrote {output}{others} ({size:.1f} MB)")
    return parity


def with_given_names(loaded: LoadedModel, source: Path, exp: Exp | None) -> LoadedModel:
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
        "to name them, set class_names NAME,NAME,… in their order"
    )
    return loaded


def evaluation_images(exp: Exp | None) -> list[Path]:
    """Those of the Exp, where there is one and its data are there."""
    if exp is None:
        return []
    try:
        samples = getattr(exp.get_eval_dataset(), "samples", ())
    except (UserError, OSError) as error:
        logger.info(f"no evaluation images to compare on ({error})")
        return []
    return [sample.path for sample in samples]


def evenly_spread(images: Sequence[Path]) -> list[Path]:
    """At most `MAX_PICTURES`, from first to last."""
    if len(images) <= MAX_PICTURES:
        return list(images)
    logger.info(f"comparing on {MAX_PICTURES} of {len(images)} images")
    return [images[round(n * (len(images) - 1) / (MAX_PICTURES - 1))] for n in range(MAX_PICTURES)]


def has_onnxslim() -> bool:
    """Whether an ONNX graph can be simplified; where it cannot, that is logged."""
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
                raise UserError(f"{path} {error.what}: give others as `images`") from None
            logger.warning(f"{path} {error.what}: compared without it")
