"""Ultralytics for these tests alone: in a folder of its own, offline, torchvision stubbed."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.ultralytics.helpers import make_data, make_detector

STUB = Path(__file__).with_name("stub")
_kept_stub: dict[str, ModuleType] = {}
INSTALL = 'pip install "ultralytics>=8.4.190,<8.5"'


@pytest.fixture(scope="package", autouse=True)
def ultralytics_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is fetched and nothing is written elsewhere, here and in processes begun here."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip(f"Ultralytics is not installed: {INSTALL}")
    folder = tmp_path_factory.mktemp("ultralytics")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "YOLO_CONFIG_DIR": str(folder),
            "YOLOX_CACHE": str(folder / "cache"),
            "YOLO_OFFLINE": "true",
            "YOLO_AUTOINSTALL": "false",
            "YOLO_VERBOSE": "false",
            "ULTRALYTICS_SAFE_LOAD": "true",
        }.items():
            patch.setenv(name, value)
        stubbed = importlib.util.find_spec("torchvision") is None
        if stubbed:
            patch.syspath_prepend(str(STUB))
            patch.setenv("PYTHONPATH", str(STUB), prepend=os.pathsep)
            sys.modules.update(_kept_stub)
        from ultralytics import SETTINGS

        places = {f"{kind}_dir": str(folder / kind) for kind in ("runs", "weights", "datasets")}
        SETTINGS.update(places | {"mlflow": False, "wandb": False, "tensorboard": False})
        yield folder
        # Other tests' libraries would take the stub for the whole. It registers its operators
        # once a process, so it is kept for the next of these tests.
        for name in [n for n in sys.modules if stubbed and n.split(".")[0] == "torchvision"]:
            _kept_stub[name] = sys.modules.pop(name)


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory, ultralytics_home: Path) -> Path:
    """The YAML of a data set of eight images a split. Not to be written to."""
    return make_data(tmp_path_factory.mktemp("yolo_data") / "set")


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory, ultralytics_home: Path) -> Path:
    """A small YOLOv8's file. Not to be written to."""
    from yolox.ultralytics import save_detector

    path = tmp_path_factory.mktemp("whole") / "whole.pt"
    save_detector(make_detector(), path)
    return path


@pytest.fixture(scope="package")
def pruned(tmp_path_factory: pytest.TempPathFactory, whole: Path) -> Path:
    """The same with half of the MACs. Not to be written to."""
    from tests.ultralytics.helpers import CHEAP, SIDE
    from yolox.pruning import PruneConfig
    from yolox.ultralytics import prune_detector, read_detector, save_detector

    config = PruneConfig(target="macs=0.5", **CHEAP)
    path = tmp_path_factory.mktemp("pruned") / "pruned.pt"
    save_detector(prune_detector(read_detector(whole), config, size=(SIDE, SIDE)).model, path)
    return path
