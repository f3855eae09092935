"""Where data sets lie."""

from __future__ import annotations

import os
from pathlib import Path


def get_yolox_datadir() -> str:
    """The folder that holds data sets.

    The environment variable YOLOX_DATADIR if set; else ``datasets`` in the current folder if it
    is there; else ``datasets`` beside the ``yolox`` package.
    """
    from_env = os.environ.get("YOLOX_DATADIR")
    if from_env:
        return from_env
    here = Path.cwd() / "datasets"
    return str(here if here.is_dir() else Path(__file__).resolve().parents[2] / "datasets")
