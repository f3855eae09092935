"""The command that cuts DOTA's images, and evaluation on what it cut them from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.evaluators.helpers import perfect
from tests.helpers import shared
from tests.runs import command, tree
from yolox.data import VOCDetection
from yolox.data.tiles import whole_images
from yolox.evaluators import evaluate_voc
from yolox.evaluators.tiled import merge_to_whole
from yolox.tools import convert_dota


def convert(images: Path, output: Path, *args: object) -> int:
    labels = images.parent / "labelTxt"
    flags = ("--images", images, "--labels", labels, "--output", output, "--workers", 1)
    return command(convert_dota.main, *flags, *args)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "P1.png"), np.zeros((100, 150, 3), np.uint8))
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "P1.txt").write_text("10 10 30 10 30 30 10 30 ship 0\n")
    return folder


def test_what_it_prints_and_writes(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "VOCdevkit"
    assert convert(images, output, "--size", 100, "--overlap", 20, "--split", "val") == 0
    log = capsys.readouterr().err
    assert "1 images → 2 tiles with 1 objects (0 of them difficult)" in log
    assert "split val; 15 classes: plane, baseball-diamond" in log
    assert sorted(tree(output)) == [
        "VOC2007/Annotations/P1__1__0___0.xml",
        "VOC2007/Annotations/P1__1__50___0.xml",
        "VOC2007/ImageSets/Main/val.txt",
        "VOC2007/JPEGImages/P1__1__0___0.png",
        "VOC2007/JPEGImages/P1__1__50___0.png",
        "VOC2007/Whole/P1.json",
        "VOC2007/classes.txt",
    ]


def test_flags_reach_the_converter(images: Path, tmp_path: Path) -> None:
    flags = "--size 26 --overlap 6 --min-area 0.5 --keep-empty 0 --difficult drop --year 2012"
    assert convert(images, tmp_path / "out", *flags.split()) == 0
    (sample,) = VOCDetection(tmp_path / "out", [("2012", "train")]).samples
    assert sample.name == "P1__1__0___0"
    np.testing.assert_array_equal(sample.boxes, [[10, 10, 26, 26]])
    assert sample.difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--size 100 --overlap 100", "overlap: expected 0 to 99"),
        ("--overlap -1", "at least 0"),
        ("--keep-empty 2", "must be in [0, 1]"),
        ("--difficult maybe", "--difficult"),
        ("--split a/b", "split: expected letters"),
    ],
)
def test_convert_dota_refuses_wrong_flags(
    flags: str, words: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(images, tmp_path / "out", *flags.split()) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_real_image(tmp_path: Path) -> None:
    """Its labels name 536 objects; what each tile shows, found, is what the image shows."""
    assert convert(shared("data/dota_example/images"), tmp_path) == 0
    data = VOCDetection(tmp_path, [("2007", "train")])
    assert len(data.samples) == 4
    (whole,) = whole_images(data.samples, data.class_names)
    assert (whole.height, whole.width, len(whole.boxes)) == (1182, 1111, 536)
    assert int(whole.difficult.sum()) == 6
    ((_, found),) = merge_to_whole([whole], perfect(data.samples), 0.45)
    assert abs(len(found.boxes) - 536) < 10, "once each, but for pieces at the tiles' edges"
    result = evaluate_voc([whole], [found], len(data.class_names), (0.5,))
    ap50 = dict(zip(data.class_names, result.ap_area[0], strict=True))
    assert ap50["ship"] > 0.99
    assert ap50["harbor"] == pytest.approx(1.0)
