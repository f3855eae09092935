"""Detections of tiles back on their image: offsets, NMS over the seams, ground truth once."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.evaluators.helpers import FakeSample, detections, perfect, sample
from yolox.evaluators import evaluate_coco
from yolox.evaluators.tiled import merge_tiles, merge_to_whole


@dataclass(frozen=True)
class Whole(FakeSample):
    tiles: dict = field(default_factory=dict)


def whole(image_id, objects, tiles):
    return Whole(**vars(sample(image_id, objects, height=100, width=180)), tiles=tiles)


def rows(found):
    boxes, scores = found.boxes.tolist(), found.scores.round(4).tolist()
    return [(c, s, *b) for c, s, b in zip(found.classes.tolist(), scores, boxes, strict=True)]


def test_boxes_move_by_their_tile_s_offset():
    tiles = [detections(1, [(0, 0.5, 1, 2, 11, 12)]), detections(2, [(1, 0.75, 1, 2, 11, 12)])]
    found = merge_tiles(tiles, [(0, 0), (80, 30)], image_id=9, nms_threshold=0.5)
    assert found.image_id == 9
    assert rows(found) == [(1, 0.75, 81, 32, 91, 42), (0, 0.5, 1, 2, 11, 12)]
    assert found.boxes.dtype == np.float32
    assert tiles[1].boxes.tolist() == [[1, 2, 11, 12]], "arguments stay as they are"


def test_what_two_tiles_found_is_found_once_and_classes_do_not_compete():
    left = detections(1, [(0, 0.5, 82, 10, 98, 30), (1, 0.25, 82, 10, 98, 30)])
    right = detections(2, [(0, 0.75, 2, 10, 18, 30)])
    found = merge_tiles([left, right], [(0, 0), (80, 0)], image_id=0, nms_threshold=0.5)
    assert rows(found) == [(0, 0.75, 82, 10, 98, 30), (1, 0.25, 82, 10, 98, 30)]


def test_a_single_tile_keeps_every_detection():
    only = detections(1, [(0, 0.75, 0, 0, 10, 10), (0, 0.5, 0, 0, 10, 10)])
    assert len(merge_tiles([only], [(5, 0)], image_id=0, nms_threshold=0.5).boxes) == 2


def test_nothing_found():
    found = merge_tiles(
        [detections(1, []), detections(2, [])], [(0, 0), (5, 5)], image_id=0, nms_threshold=0.5
    )
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("offsets", [[], [(0, 0), (1, 1)]])
def test_an_offset_a_tile(offsets):
    with pytest.raises(ValueError, match=f"got {len(offsets)} for 1 tiles"):
        merge_tiles([detections(1, [])], offsets, image_id=0, nms_threshold=0.5)


def test_an_object_in_two_tiles_counts_once():
    """Tiles 100 wide at x = 0 and 80: the second object is whole in both of them."""
    objects = [(0, 10, 10, 30, 30), (0, 82, 10, 98, 30), (1, 120, 40, 160, 80)]
    image = whole(0, objects, {10: (0, 0), 11: (80, 0)})
    empty = whole(1, [], {12: (0, 0)})
    tiles = [
        sample(10, [(0, 10, 10, 30, 30), (0, 82, 10, 98, 30)]),
        sample(11, [(0, 2, 10, 18, 30), (1, 40, 40, 80, 80)]),
        sample(12, []),
    ]
    pairs = merge_to_whole([image, empty], perfect(tiles), 0.5)
    assert [(w.image_id, f.image_id, len(f.boxes)) for w, f in pairs] == [(0, 0, 3), (1, 1, 0)]
    result = evaluate_coco([w for w, _ in pairs], [f for _, f in pairs], 2)
    assert result.metrics["ap50_95"] == pytest.approx(1.0)


def test_entries_and_tiles_must_be_the_same():
    image = whole(0, [], {10: (0, 0), 11: (80, 0)})
    with pytest.raises(ValueError, match=r"each of 2 tiles; without one: \[11\].*whole image: \[3"):
        merge_to_whole([image], [detections(10, []), detections(3, [])], 0.5)
