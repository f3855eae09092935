"""Exported files where a command takes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yolox.export import ExportedModel, open_exported
from yolox.export.runtime import tell_program
from yolox.models import ModelSpec
from yolox.utils.errors import UserError


def refuse_flags(path: Path, flags: Mapping[str, object]) -> None:
    """Raise `UserError` for flags, by name with their values, that make no sense for a file."""
    if given := [flag for flag, value in flags.items() if value]:
        raise UserError(
            f"{' and '.join(given)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime on the CPU; leave them out, or give the checkpoint"
        )


def open_file(
    path: Path, *, tsize: int | None, flags: Mapping[str, object], openvino_precision: str = "f32"
) -> tuple[ExportedModel, ModelSpec]:
    """An exported file, and what a spec says of classes and input size.

    Args:
        path: as `open_exported` takes it.
        tsize: side of the square that the images are to be fitted into; the file's own by default.
        flags: of the command, with their values, that make no sense for a file; none may be set.
        openvino_precision: as `open_exported` takes it, of OpenVINO's files.

    Raises:
        UserError: flags that do not go with the file; or as `open_exported`.
    """
    refuse_flags(path, flags)
    model = open_exported(path, precision=openvino_precision)
    tell_program(path)
    return model, model.spec((tsize, tsize) if tsize else None)


def refuse_flags(path: Path, flags: Mapping[str, object]) -> None:
    """Raise `UserError` where a flag is set that makes no sense for an exported file."""
    if given := [flag for flag, value in flags.items() if value]:
        raise UserError(
            f"{' and '.join(given)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime on the CPU; leave them out, or give the checkpoint"
        )
