"""Exported files where a command takes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loguru import logger

from yolox.export import ExportedModel, open_exported
from yolox.models import ModelSpec
from yolox.utils.errors import UserError


def open_file(
    path: Path, *, tsize: int | None, flags: Mapping[str, object]
) -> tuple[ExportedModel, ModelSpec]:
    """An exported file, and what a spec says of classes and input size.

    Args:
        path: as `open_exported` takes it.
        tsize: side of the square that the images are to be fitted into; the file's own by default.
        flags: of the command, with their values, that make no sense for a file; none may be set.

    Raises:
        UserError: flags that do not go with the file; or as `open_exported`.
    """
    if given := [flag for flag, value in flags.items() if value]:
        raise UserError(
            f"{' and '.join(given)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime on the CPU; leave them out, or give the checkpoint"
        )
    model = open_exported(path)
    info = model.info
    size = (tsize, tsize) if tsize else info.input_size
    if size != info.input_size and not info.dynamic_size:
        height, width = info.input_size
        raise UserError(
            f"--tsize {tsize}, but {path} takes {height}×{width} alone: leave it out, or export "
            "with --dynamic-size"
        )
    spec = ModelSpec(
        architecture=info.architecture,
        num_classes=info.num_classes,
        class_names=info.class_names,
        input_size=size,
    )
    return model, spec


def warn_of_nms(model: ExportedModel, conf: float, nms: float) -> None:
    """Say so where a file's own NMS keeps less than what is asked for."""
    info = model.info
    if info.nms and (conf < info.conf_threshold or nms > info.nms_threshold):
        logger.warning(
            f"NMS is in {model.path}: it keeps scores of {info.conf_threshold:g} or more and "
            f"overlaps up to IoU {info.nms_threshold:g}, so asking for scores of {conf:g} and IoU "
            f"{nms:g} brings back nothing"
        )
