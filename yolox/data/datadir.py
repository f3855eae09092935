"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path


def get_yolox_datadir() -> str:
    """The folder that holds data sets.

    The environment variable YOLOX_DATADIR if set; else ``datasets`` in the current folder, or
    beside the ``yolox`` package where only that is there, as in a clone of the repository.
    """
    from_env = os.environ.get("YOLOX_DATADIR")
    if from_env:
        return from_env
    here, beside = Path.cwd() / "datasets", Path(__file__).resolve().parents[2] / "datasets"
    return str(beside if beside.is_dir() and not here.is_dir() else here)
