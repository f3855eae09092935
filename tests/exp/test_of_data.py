"""A data set's path is enough: its layout and splits are found, or what was looked for is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from loguru import logger

from tests.runs import command
from yolox.data import DataError
from yolox.exp import DOTAExp, Exp, ExpError, VOCExp, YOLOExp, get_exp
from yolox.exp.of_data import exp_of_data
from yolox.tools import eval as eval_tool


def coco_set(folder: Path, splits: tuple[str, ...], roboflow: bool = False) -> Path:
    """A COCO data set of one image a split."""
    for number, split in enumerate(splits):
        images = folder / split
        images.mkdir(parents=True)
        cv2.imwrite(str(images / "a.png"), np.zeros((32, 48, 3), np.uint8))
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 48}],
            "categories": [{"id": 3, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 9, 9 + number]}
            ],
        }
        place = images if roboflow else folder / "annotations"
        place.mkdir(exist_ok=True)
        name = "_annotations.coco.json" if roboflow else f"instances_{split}.json"
        (place / name).write_text(json.dumps(content))
    return folder


def yolo_set(folder: Path, splits: tuple[str, ...]) -> Path:
    lines = [f"{split}: images/{split}" for split in splits]
    for split in splits:
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        cv2.imwrite(str(folder / "images" / split / "a.png"), np.zeros((32, 48, 3), np.uint8))
        (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (folder / "data.yaml").write_text("\n".join([*lines, "names: [dog]"]) + "\n")
    return folder


def sizes(exp: Exp) -> tuple[int, int]:
    """How many images the recipe trains and evaluates on."""
    return len(exp.train_records().records), len(exp.eval_records().records)


def test_data_in_voc_layout(devkit: Path) -> None:
    for path in (devkit, devkit.parent, devkit / "VOC2007"):
        exp = exp_of_data(path, "yolox-nano")
        assert type(exp) is VOCExp
        assert sizes(exp) == (7, 2)
        assert exp.width == 0.25
        assert {"data_dir", "train_sets", "val_sets"} <= exp.given


def test_data_in_voc_layout_without_a_year(devkit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(devkit / "VOC2007", tmp_path / "export"))
    assert sizes(exp_of_data(folder)) == (7, 2)


def test_test_images_are_those_of_the_test_split(devkit: Path, tmp_path: Path) -> None:
    splits = ("train", "val", "test")
    for folder in (devkit, coco_set(tmp_path, splits), yolo_set(tmp_path / "yolo", splits)):
        exp = exp_of_data(folder, "yolox-nano")
        evaluated = exp.get_eval_dataset(testdev=False)
        tested = exp.get_eval_dataset(testdev=True)
        assert evaluated.records.title.endswith(("val", "instances_val.json"))
        assert tested.records.title.endswith(("test", "instances_test.json"))
        paths = [{sample.path for sample in data.samples} for data in (evaluated, tested)]
        assert all(paths)
        assert not set.intersection(*paths)
        assert not {"test_ann", "test_sets"} & exp.given


def test_no_test_images_are_an_error(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpError, match="no test images: set test_sets"):
        get_exp("voc", data_dir=str(devkit)).get_eval_dataset(testdev=True)
    data = str(yolo_set(tmp_path, ("train", "val")))
    with pytest.raises(DataError, match="names no images for test"):
        get_exp("yolo", data_dir=data).get_eval_dataset(testdev=True)


@pytest.mark.parametrize("roboflow", [False, True])
def test_data_in_coco_layout(tmp_path: Path, roboflow: bool) -> None:
    exp = exp_of_data(coco_set(tmp_path, ("train", "valid", "test"), roboflow))
    assert type(exp) is Exp
    assert sizes(exp) == (1, 1)
    assert exp.train_records().records[0].boxes[0][3] == 11
    assert exp.eval_records().records[0].boxes[0][3] != 11
    assert len(exp.get_dataset()) == len(exp.get_eval_dataset()) == 1


def test_data_in_yolo_layout(tmp_path: Path) -> None:
    folder = yolo_set(tmp_path, ("train", "val"))
    for path in (folder, folder / "data.yaml"):
        exp = exp_of_data(path)
        assert type(exp) is YOLOExp
        assert sizes(exp) == (1, 1)
        assert exp.find_classes() == ("dog",)


def test_the_classes_of_a_yolo_layout_take_no_reading_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = exp_of_data(yolo_set(tmp_path, ("train",)))
    monkeypatch.delattr("yolox.data.datasets.yolo_txt.read_labels")
    exp.resolve_classes()
    assert exp.class_names == ("dog",)


def test_the_classes_of_a_coco_layout_take_no_looking_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = exp_of_data(coco_set(tmp_path, ("train", "val")))
    monkeypatch.delattr("yolox.data.datasets.coco.place_images")
    exp.resolve_classes()
    assert exp.class_names == ("dog",)


def test_data_of_tiles(devkit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(devkit, tmp_path / "VOCdevkit"))
    (folder / "VOC2007" / "Whole").mkdir()
    exp = exp_of_data(folder)
    assert type(exp) is DOTAExp
    assert exp.degrees == 180
    assert sizes(exp) == (7, 2)


def test_data_of_one_split_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    exp = exp_of_data(yolo_set(tmp_path, ("train",)))
    logger.remove(sink)
    assert exp.val_split == "train"
    assert any("has one split, train" in line for line in said)


def test_data_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set at .* Looked for: VOC<year>.*data\.yaml"):
        exp_of_data(tmp_path)


def test_data_and_an_exp_file_are_one_too_many(
    tiny_exp: Path, devkit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(eval_tool.main, "--data", devkit, "-f", tiny_exp) == 1
    assert "leave out one of them" in capsys.readouterr().err


def test_data_of_a_checkpoint_is_evaluated(
    trained: Path, devkit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = trained / "best_ckpt.pth"
    assert command(eval_tool.main, "--data", devkit, "-c", best, "data_num_workers", 0) == 0
    log = capsys.readouterr().err
    assert "VOC layout, trained on train, evaluated on val" in log
    assert "AP50-95" in log


def test_data_in_several_layouts_is_not_guessed(devkit: Path, tmp_path: Path) -> None:
    shutil.copytree(devkit, tmp_path / "VOCdevkit")
    coco_set(tmp_path, ("train", "val"), roboflow=False)
    yolo_set(tmp_path, ("train", "val"))
    places = [tmp_path / name for name in ("VOCdevkit", "annotations", "data.yaml")]
    with pytest.raises(DataError, match="several layouts") as caught:
        exp_of_data(tmp_path)
    assert all(str(place) in str(caught.value) for place in places)
    kinds = [type(exp_of_data(place)) for place in places]  # what it names is found
    assert kinds == [VOCExp, Exp, YOLOExp]
