"""What the README shows in Python runs as it stands, on the built-in data at a small setting."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.runs import REPO
from yolox.exp import Exp, VOCExp, models

SMALL = {
    "input_size": (64, 64),
    "test_size": (64, 64),
    "multiscale_range": 0,
    "batch_size": 4,
    "max_epoch": 1,
    "no_aug_epochs": 0,
    "warmup_epochs": 0.0,
    "data_num_workers": 0,
}


def python_blocks(page: Path) -> list[str]:
    """The Python code of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def test_readme_python_runs_as_it_stands(
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    (block,) = python_blocks(REPO / "README.md")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(devkit, tmp_path / "datasets" / "VOCdevkit")
    shutil.copytree(devkit / "VOC2007" / "JPEGImages", tmp_path / "photos")
    for name, value in SMALL.items():
        monkeypatch.setattr(Exp, name, value)
    monkeypatch.setattr(VOCExp, "finetune_act", "")
    monkeypatch.setitem(models.SCALES, "yolox-s", (0.33, 0.125))
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert Path("model.onnx").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert 0 <= float(lines[0]) <= 1
    assert len([line for line in lines if line.startswith("photos")]) == 12
