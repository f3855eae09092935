"""Photographs in, boxes out: the COCO weights find what the official code finds, also by tiles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import golden_json, shared
from tests.runs import command
from yolox.data import COCO_CLASSES
from yolox.models import load_model
from yolox.predict import TILE_BATCH_SIZE, Detector
from yolox.tools import demo
from yolox.utils.model_utils import fuse_model

GOLDEN = golden_json("detections_yolox_nano_coco.json")


def detector(name: str, *, fuse: bool = False) -> Detector:
    expected = GOLDEN[name]
    model = load_model(shared("weights/yolox_nano_coco.pth")).model
    return Detector(
        model=fuse_model(model) if fuse else model,
        size=tuple(expected["input_size"]),
        num_classes=80,
        conf=expected["conf_thre"],
        nms=expected["nms_thre"],
    )


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("name", GOLDEN)
def test_detections_of_the_coco_weights(name: str, fuse: bool) -> None:
    expected = GOLDEN[name]
    (found,) = detector(name, fuse=fuse).detect([cv2.imread(str(shared(f"images/{name}")))])
    assert len(found) == len(expected["detections"])
    for row, entry in zip(found, expected["detections"], strict=True):
        assert COCO_CLASSES[int(row[6])] == entry["name"]
        np.testing.assert_allclose(row[:4], entry["box_xyxy_original_pixels"], atol=1)
        np.testing.assert_allclose(row[4:6], [entry["obj"], entry["cls"]], atol=0.01)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_tile_larger_than_the_image_changes_nothing(name: str) -> None:
    image = cv2.imread(str(shared(f"images/{name}")))
    (rows,) = detector(name).detect([image])
    tiled = detector(name).detect_tiled(image, 4096, 200)
    np.testing.assert_array_equal(tiled.boxes, rows[:, :4])
    np.testing.assert_array_equal(tiled.scores, rows[:, 4] * rows[:, 5])
    np.testing.assert_array_equal(tiled.classes, rows[:, 6])


def test_each_tile_is_seen_as_an_image_of_its_own() -> None:
    """Two photographs side by side: each tile shows one of them."""
    image = cv2.imread(str(shared("images/dog.jpg")))
    height, width = image.shape[:2]
    side = max(height, width)
    scene = np.full((side, 2 * side, 3), 114, np.uint8)
    scene[:height, :width] = scene[:height, side : side + width] = image
    whole = detector("dog.jpg").detect([image])[0][:, :4]
    tiled = detector("dog.jpg").detect_tiled(scene, side, 0)
    expected = np.concatenate([whole, whole + np.float32([side, 0, side, 0])])
    assert len(tiled.boxes) == len(expected)
    apart = np.abs(tiled.boxes[:, None] - expected[None]).max(axis=2)
    assert (apart.min(axis=0) < 1).all()


class Blob(torch.nn.Module):
    """Finds the white rectangle of an image, of class 0, as (1, 1, 6); nothing where none is."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        out = torch.zeros(len(images), 1, 6)
        for i, image in enumerate(images):
            rows, columns = torch.nonzero(image[0] == 255, as_tuple=True)
            if len(rows):
                x1, x2 = columns.min(), columns.max() + 1
                y1, y2 = rows.min(), rows.max() + 1
                out[i, 0] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.9, 1.0])
        return out


def test_an_object_on_a_seam_is_found_once_and_in_its_place() -> None:
    """Tiles of 32 with overlap 16 on 64 × 80: the square is whole in four of them."""
    image = np.zeros((64, 80, 3), np.uint8)
    image[20:28, 34:44] = 255
    blob = Blob()
    seen = Detector(model=blob, size=(32, 32), num_classes=1, conf=0.5, nms=0.5)
    found = seen.detect_tiled(image, 32, 16)
    assert found.boxes.tolist() == [[34, 20, 44, 28]]
    assert found.scores.tolist() == [pytest.approx(0.9)]
    assert sum(blob.batches) == 12, "4 × 3 tiles"
    assert max(blob.batches) == TILE_BATCH_SIZE


def test_legacy_and_mixed_precision_reach_the_model() -> None:
    seen = []

    class Spy(Blob):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((float(images.max()), torch.is_autocast_enabled("cpu")))
            return super().forward(images)

    image = np.full((32, 32, 3), 255, np.uint8)
    common = {"model": Spy(), "size": (32, 32), "num_classes": 1, "conf": 0.5, "nms": 0.5}
    Detector(**common).detect([image])
    Detector(**common, legacy=True, autocast=torch.bfloat16).detect([image])
    assert seen[0] == (255, False)
    assert seen[1] == (pytest.approx((1 - 0.406) / 0.225), True)


def test_the_official_command_line(trained: Path, devkit: Path, tmp_path: Path) -> None:
    path = devkit / "VOC2007" / "JPEGImages" / "demo_00000.jpg"
    line = (
        f"image -c {trained / 'best_ckpt.pth'} --path {path} --conf 0.25 --nms 0.45 --tsize 64 "
        f"--save_result --fuse --fp16 --device cpu --save_dir {tmp_path}"
    )
    assert command(demo.main, *line.split()) == 0
    assert (tmp_path / path.name).is_file()


def test_the_exp_names_the_checkpoint(
    trained: Path, tiny_exp: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = devkit / "VOC2007" / "JPEGImages" / "demo_00000.jpg"
    args = ("-f", tiny_exp, "--path", path, "--save_dir", tmp_path)
    assert command(demo.main, *args, "--conf", 0.0001) == 0
    assert "circle 0." in capsys.readouterr().err
    assert command(demo.main, *args, "--experiment-name", "other") == 1
    assert str(Path("out") / "other" / "best_ckpt.pth") in capsys.readouterr().err


BAD = [
    (["movie"], ["movie", "webcam"]),
    (["webcam"], ["from --camid: leave out "]),
    (["--tile", "100"], ["--overlap", "0 to 99"]),
    (["--tile", "0"], ["--tile", "at least 1"]),
    (["--overlap", "-1"], ["--overlap", "at least 0"]),
    (["--device", "tpu"], ["--device tpu: expected one of auto, cpu, gpu"]),
    (["--device", "2"], ["--device 2: expected one of auto, cpu, gpu"]),
]


@pytest.mark.parametrize(("flags", "words"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_eval_refuses_flags_at_odds_with_detections(
    flags: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*flags, "-c", "none.pth", "--path", tmp_path]
    assert command(demo.main, *args) == 1
    error = capsys.readouterr().err
    for word in words:
        assert word in error


def test_a_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    args = ("-c", "none.pth", "--path", tmp_path, "--device", "gpu")
    assert command(demo.main, *args) == 1
    error = capsys.readouterr().err
    assert "--device gpu: PyTorch" in error
    assert error.rstrip().endswith(": use auto or cpu")


def test_the_pictures_to_look_at_are_not_written_over(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    before = (devkit / "VOC2007" / "JPEGImages" / "demo_00000.jpg").read_bytes()
    photo.write_bytes(before)
    for path in (tmp_path, photo):
        args = ("-c", trained / "best_ckpt.pth", "--path", path, "--save_dir", tmp_path)
        assert command(demo.main, *args) == 1
        assert "choose another --save_dir" in capsys.readouterr().err
    assert photo.read_bytes() == before
    below = tmp_path / "sub" / "photo.jpg"
    below.parent.mkdir()
    below.write_bytes(before)
    args = ("-c", trained / "best_ckpt.pth", "--path", tmp_path, "--save_dir", below.parent)
    assert command(demo.main, *args) == 1
    assert below.read_bytes() == before
