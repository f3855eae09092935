"""Exported files where a command takes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from yolox.utils.errors import UserError


def refuse_flags(path: Path, flags: Mapping[str, object]) -> None:
    """Raise `UserError` for flags, by name with their values, that make no sense for a file."""
    if given := [flag for flag, value in flags.items() if value]:
        raise UserError(
            f"{' and '.join(given)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime on the CPU; leave them out, or give the checkpoint"
        )
