"""Photographs in, boxes out: the COCO weights find what the official code finds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.helpers import golden_json, shared
from yolox.data import COCO_CLASSES
from yolox.models import load_model
from yolox.tools.demo import detect

GOLDEN = golden_json("detections_yolox_nano_coco.json")


@pytest.mark.parametrize("name", GOLDEN)
def test_detections_of_the_coco_weights(name: str) -> None:
    expected = GOLDEN[name]
    loaded = load_model(shared("weights/yolox_nano_coco.pth"))
    found = detect(
        loaded.model,
        cv2.imread(str(shared(f"images/{name}"))),
        size=tuple(expected["input_size"]),
        num_classes=80,
        conf=expected["conf_thre"],
        nms=expected["nms_thre"],
    )
    assert len(found) == len(expected["detections"])
    for row, entry in zip(found, expected["detections"], strict=True):
        assert COCO_CLASSES[int(row[6])] == entry["name"]
        np.testing.assert_allclose(row[:4], entry["box_xyxy_original_pixels"], atol=1)
        np.testing.assert_allclose(row[4:6], [entry["obj"], entry["cls"]], atol=0.01)
