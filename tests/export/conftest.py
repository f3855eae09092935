"""What the tests of exported files share: checkpoints made once, and files written once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.helpers import SIZE, write_checkpoint
from yolox.export import ExportSettings, write_model
from yolox.export.settings import SUFFIXES
from yolox.models import load_model

Checkpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Makes a checkpoint of a kind of model, an activation and a state; not to be written to."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def make(kind: str = "slim", act: str = "silu", state: str = "dense") -> Path:
        return write_checkpoint(folder, kind, act, state)

    return make


@pytest.fixture(scope="session")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Writes the slim model in a format, with other settings if need be; not to be written to."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def make(kind: str, **settings: bool | int | float) -> Path:
        name = "_".join([kind, *(f"{key}{value}" for key, value in settings.items())])
        output = folder / f"{name}{SUFFIXES[kind][0]}"
        chosen = ExportSettings(format=kind, size=SIZE, **{"decode": True, **settings})
        return write_model(load_model(checkpoint()), output, chosen, source_sha256="abc")

    return make
