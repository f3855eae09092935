"""Which images two models differ on, by hand-made detections."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from yolox.evaluators import ImageDetections
from yolox.report import above_score, differences, draw_picture, most_different

Row = tuple[float, float, float, float, float, int]


def _found(*rows: Row) -> ImageDetections:
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ImageDetections(
        image_id=1,
        boxes=table[:, :4],
        scores=table[:, 4],
        classes=table[:, 5].astype(np.int64),
    )


A: Row = (0, 0, 10, 10, 0.9, 0)
NEAR_A: Row = (0, 0, 10, 8, 0.5, 0)  # IoU 0.8
HALF_A: Row = (0, 0, 10, 5, 0.75, 0)  # IoU 0.5
LESS_A: Row = (0, 0, 10, 4.9, 0.75, 0)  # IoU 0.49
OTHER_A: Row = (0, 0, 10, 10, 0.5, 1)
B: Row = (50, 50, 60, 60, 0.25, 0)
FAINT: Row = (80, 80, 90, 90, 0.1, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((A,), (NEAR_A,), (0, 0, 0.0)),
        ((A,), (HALF_A,), (0, 0, 0.0)),
        ((A,), (LESS_A,), (1, 1, 0.9 + 0.75)),
        ((A,), (OTHER_A,), (1, 1, 0.9 + 0.5)),
        ((A, B), (A,), (1, 0, 0.25)),
        ((), (A, B), (0, 2, 0.9 + 0.25)),
        ((A,), (A, NEAR_A), (0, 1, 0.5)),  # each is matched once, the best overlap first
        ((NEAR_A,), (A, NEAR_A), (0, 1, 0.9)),
        ((FAINT,), (), (0, 0, 0.0)),
        ((), (), (0, 0, 0.0)),
    ],
)
def test_unmatched_detections_count_by_score(
    before: tuple[Row, ...], after: tuple[Row, ...], expected: tuple[int, int, float]
) -> None:
    (found,) = differences([_found(*before)], [_found(*after)], score=0.2)
    assert (found.lost, found.gained, found.weight) == (*expected[:2], pytest.approx(expected[2]))


def test_most_different_images_come_first() -> None:
    before = [_found(A), _found(A, B), _found(B), _found(), _found(A)]
    after = [_found(A), _found(), _found(), _found(), _found()]
    found = differences(before, after, score=0.2)
    assert most_different(found, 10) == [1, 4, 2]
    assert most_different(found, 2) == [1, 4]
    assert most_different(found, 0) == []


def test_a_score_on_the_limit_counts() -> None:
    assert len(above_score(_found(A, (0, 0, 1, 1, 0.3, 0)), 0.3).boxes) == 2


def test_pictures_are_small_and_show_the_boxes() -> None:
    image = np.full((600, 960, 3), 90, np.uint8)
    boxes = np.array([[100, 100, 500, 500]], np.float32)
    shot = draw_picture("x", image, boxes, np.array([0.5], np.float32), np.array([0]), ["a"])
    assert (shot.width, shot.height, shot.found) == (480, 300, 1)
    kind, _, data = shot.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert len(data) < 40_000
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (300, 480, 3)
    changed = np.abs(decoded.astype(int) - 90).max(axis=2) > 25
    assert changed[150, 50]  # the left edge at half the size
    assert changed[150, 250]
    assert not changed[150, 150]
    tall = draw_picture("x", image[:50, :40], boxes[:0], boxes[:0, 0], np.zeros(0, int), ["a"])
    assert (tall.width, tall.height, tall.found) == (40, 50, 0)
