"""A folder in which the Python of the pages runs, at a small setting."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import yolox
from tests.runs import REPO, one_probe
from yolox.exp import models

SMALL = {
    "input_size": (64, 64),
    "test_size": (64, 64),
    "multiscale_range": 0,
    "batch_size": 4,
    "max_epoch": 1,
    "no_aug_epochs": 0,
    "warmup_epochs": 0.0,
    "data_num_workers": 0,
    "finetune_act": "",
}


@pytest.fixture(autouse=True, scope="package")
def brief_proof() -> Iterator[None]:
    """See there."""
    with one_probe():
        yield


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as an ONNX file."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    return yolox.export_model(trained / "best_ckpt.pth", file, half=False)


@pytest.fixture
def desk(
    devkit: Path, trained: Path, pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with the files that the pages name; published weights are small ones."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(devkit, tmp_path / "datasets" / "VOCdevkit")
    shutil.copytree(devkit / "VOC2007" / "JPEGImages", tmp_path / "photos")
    shutil.copytree(REPO / "exps", tmp_path / "exps")
    shutil.copy(trained / "best_ckpt.pth", "best_ckpt.pth")
    for file in (pruned, pruned.with_name("pruned.plan.json")):
        shutil.copy(file, file.name)
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(trained / "best_ckpt.pth", cache / "yolox_s.pth")
    monkeypatch.setenv("YOLOX_CACHE", str(cache))
    monkeypatch.setitem(models.SCALES, "yolox-s", (0.33, 0.125))
    given = yolox.get_exp

    def get_exp(*args: Any, **fields: Any) -> yolox.Exp:
        exp = given(*args, **fields)
        for name, value in SMALL.items():
            setattr(exp, name, value)
        return exp

    monkeypatch.setattr(yolox, "get_exp", get_exp)
    return tmp_path
