"""Pictures as cameras, scanners and broken downloads leave them, through training as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.pictures import deep, noise, os2_bmp, pillow
from tests.runs import command
from yolox.tools import check_data, train

EXP = """
from yolox.exp import YOLOExp

class Exp(YOLOExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 0.33, 0.125
        self.input_size = self.test_size = (64, 64)
        self.random_size = (2, 2)
        self.max_epoch = 1
        self.no_aug_epochs = self.warmup_epochs = self.data_num_workers = 0
        self.exp_name, self.output_dir = "odd", "out"
"""
BOX = "0 0.5 0.5 0.5 0.5\n"


@pytest.fixture
def odd_set(tmp_path: Path) -> Path:
    """A YOLO set of one picture of each sort."""
    picture = noise(96, 160)
    files = {
        "png_turned.png": pillow(picture, "PNG", "RGB", 6),
        "bmp_os2.bmp": os2_bmp(picture),
        "tiff_turned.tif": pillow(picture, "TIFF", "RGB", 6),
        "thin.png": pillow(noise(6, 600), "PNG", "RGB", 1),
        "truncated.jpg": pillow(picture, "JPEG", "RGB", 1)[:-20],
        "twelve_bits.png": deep(picture, ".png", 12, 1),
        "dense.png": pillow(picture, "PNG", "RGB", 1),
    }
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name, content in files.items():
        (tmp_path / "images" / name).write_bytes(content)
        lines = 300 if name == "dense.png" else 1
        (tmp_path / "labels" / name).with_suffix(".txt").write_text(BOX * lines)
    content = {"train": "images", "val": "images", "names": ["square"]}
    (tmp_path / "data.yaml").write_text(json.dumps(content))
    return tmp_path


def test_odd_pictures_train_and_are_named(
    odd_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(odd_set)
    Path("exp.py").write_text(EXP)
    assert command(train.main, "-f", "exp.py", "-b", 4, "data_dir", odd_set) == 0
    told = capsys.readouterr().err
    for words in ("1 JPEGs are truncated", "truncated.jpg", "twelve_bits.png: 12 bits of 16"):
        assert words in told
    assert (odd_set / "out" / "odd" / "best_ckpt.pth").is_file()
    assert command(check_data.main, odd_set) == 1  # one folder is both splits
    told = "".join(capsys.readouterr())
    for words in ("truncated images", "16-bit images that are nearly black"):
        assert words in told
    assert "decoded in another size" not in told
