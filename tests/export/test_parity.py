"""The comparison of two runtimes tells each kind of difference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yolox.export import Parity, measure_parity
from yolox.export.parity import FP16, FP32, count_missing, measure_detections
from yolox.utils.boxes import postprocess

BASE = torch.tensor([[[20.0, 20, 10, 10, 0.9, 0.8, 0.1], [50, 50, 9, 9, 0.9, 0.1, 0.7]]])
OPTIONS: dict[str, Any] = {"num_classes": 2, "conf": 0.3, "nms": 0.45}
SCENES = [torch.zeros(1, 3, 32, 32)]


def measure(other: Tensor, **options: Any) -> Parity:
    runs = (lambda _: BASE, lambda _: other)
    return measure_parity(*runs, SCENES, decode=lambda x, _: x, **OPTIONS, **options)


def test_each_kind_of_difference() -> None:
    assert measure(BASE).problem == ""
    assert measure(BASE).detections == 2
    moved = BASE.clone()
    moved[0, 0, 0] += 1
    assert measure(moved).box_abs == 1
    assert measure(moved).box_rel == pytest.approx(1 / 50)
    assert "boxes" in measure(moved).problem
    assert "scores" not in measure(moved).problem
    swapped = BASE.clone()
    swapped[0, 1, 5:] = BASE[0, 1, 5:].flip(0)
    assert measure(swapped).unmatched == 2
    assert "scores" in measure(swapped).problem
    assert "2 of 2 detections" in measure(swapped).problem
    broken = BASE.clone()
    broken[0, 0, 4] = torch.nan
    assert measure(broken).score_abs == torch.inf
    assert "scores" in measure(broken).problem
    with pytest.raises(ValueError, match="expected"):
        measure(BASE[:, :1])
    assert FP32.relative < 1 / 50


def test_a_sliver_moved_by_a_hair_is_the_same_box() -> None:
    slim, moved = (torch.tensor([[x, 0.0, x + 0.1, 90, 0.9, 0.8, 1]]) for x in (20.0, 20.02))
    assert count_missing(slim, moved) == 0
    assert count_missing(slim, slim + torch.tensor([0.1, 0, 0.1, 0, 0, 0, 0])) == 1
    # As high as a hair and wider than any image.
    flat = torch.tensor([[-13226.6533, -0.81624, 13404.3975, -0.81611, 0.7, 0.9, 1]])
    moves = torch.tensor([[-0.0625, 1e-5, 0.0625, 1e-5, 0, 0, 0], [0, 0.1, 0, 0.1, 0, 0, 0]])
    assert [count_missing(flat, flat + move) for move in moves] == [0, 1]
    assert count_missing(slim, None) == 1
    assert count_missing(None, slim) == 0


def test_a_tie_that_falls_the_other_way_is_no_difference() -> None:
    """Two boxes overlap and are as good, a third is at the least score."""
    other = BASE[:, :1] + torch.tensor([2.0, 0, 0, 0, 0, 0, 0])
    least = torch.tensor([[[80.0, 80, 9, 9, 0.5, 0.6, 0.1]]])
    scene = torch.cat((BASE, other, least), dim=1)
    nudge = torch.zeros(1, 4, 7)
    nudge[0, 2, 4], nudge[0, 3, 4] = 1e-5, -1e-5

    def both(expected: Tensor, got: Tensor) -> Parity:
        runs = (lambda _: expected, lambda _: got)
        return measure_parity(*runs, SCENES, decode=lambda x, _: x, **OPTIONS)

    found = [postprocess(x, 2, 0.3, 0.45)[0] for x in (scene, scene + nudge)]
    assert [len(rows) for rows in found if rows is not None] == [3, 2]
    assert both(scene, scene + nudge).unmatched == 0
    assert both(scene + nudge, scene).unmatched == 0
    # What is in neither's choice is missed still.
    assert both(scene, torch.cat((other, other, other, least), dim=1)).unmatched == 2


def test_a_class_as_probable_as_another_is_no_difference() -> None:
    even, other, less = BASE.clone(), BASE.clone(), BASE.clone()
    even[0, 0, 5:] = torch.tensor([0.8, 0.8 - 1e-6])
    other[0, 0, 5:] = torch.tensor([0.8 - 1e-6, 0.8])
    less[0, 0, 5:] = torch.tensor([0.8, 0.8 + 2 * FP32.score])
    runs = (lambda _: even, lambda _: other), (lambda _: even, lambda _: less)
    measured = [measure_parity(*r, SCENES, decode=lambda x, _: x, **OPTIONS) for r in runs]
    assert [parity.unmatched for parity in measured] == [0, 2]


def test_how_far_outside_the_image_a_box_is_matters_to_nobody() -> None:
    far, moved, near = BASE.clone(), BASE.clone(), BASE.clone()
    far[0, 0, :4] = torch.tensor([8541.95, 20, 4, 1.53e17])
    moved[0, 0, :4] = torch.tensor([8541.88, 20, 4, 1.531e17])
    near[0, 0, :4] = torch.tensor([60, 20, 4, 1.53e17])
    runs = [(lambda _: far, lambda _, other=other: other) for other in (moved, near)]
    measured = [measure_parity(*r, SCENES, decode=lambda x, _: x, **OPTIONS) for r in runs]
    assert [parity.unmatched for parity in measured] == [0, 2]


def test_next_to_no_score_is_no_detection_that_rounding_lost() -> None:
    """A tolerance above the least score does not make all anchors detections."""
    candidate = torch.tensor([[[20.0, 20, 10, 10, 0.11, 1, 0]]])
    options = OPTIONS | {"conf": 0.1, "tolerance": FP16}
    for score, missing in ((0.08, 0), (0.02, 1)):
        reference = candidate.clone()
        reference[..., 4] = score
        runs = (lambda _, out=reference: out, lambda _: candidate)
        parity = measure_parity(*runs, SCENES, decode=lambda x, _: x, **options)
        assert parity.unmatched == missing


def test_float16_is_allowed_more_but_not_another_answer() -> None:
    near = BASE.clone()
    near[..., 4] += 0.03
    near[..., 0] += 0.3
    assert measure(near).problem
    assert measure(near, tolerance=FP16).problem == ""
    far = BASE.clone()
    far[0, 0, 4] -= 0.4
    assert "scores" in measure(far, tolerance=FP16).problem


def test_boxes_are_decoded_for_the_size_of_each_batch() -> None:
    seen = []

    def decode(prediction: Tensor, size: tuple[int, int]) -> Tensor:
        seen.append(size)
        return prediction

    scenes = [torch.zeros(1, 3, 32, 64), torch.zeros(1, 3, 96, 32)]
    measure_parity(lambda _: BASE, lambda _: BASE, scenes, decode=decode, **OPTIONS)
    assert seen == [(32, 64)] * 2 + [(96, 32)] * 2


def test_detections_that_went_through_another_nms() -> None:
    """A third box of the first class overlaps the first: one NMS or the other has dropped it."""
    twin = BASE[:, :1] + torch.tensor([1.0, 0, 0, 0, -0.1, 0, 0])
    everything = torch.cat((BASE, twin), dim=1)
    missing = torch.full((1, 2, 7), torch.nan)
    kept = torch.cat((BASE.flip(1), missing), dim=1)
    assert measure_detections(lambda _: everything, lambda _: kept, SCENES, **OPTIONS) == (2, 0)
    not_dropped = measure_detections(lambda _: everything, lambda _: everything, SCENES, **OPTIONS)
    assert not_dropped == (2, 1)
    tie = everything + torch.tensor([0, 0, 0, 0, 0.1, 0, 0]) * (torch.arange(3) == 2)[:, None]
    other_kept = torch.cat((tie[:, 1:], missing), dim=1)
    assert measure_detections(lambda _: tie, lambda _: other_kept, SCENES, **OPTIONS) == (2, 0)
    dropped = measure_detections(lambda _: everything, lambda _: kept[:, :1], SCENES, **OPTIONS)
    assert dropped == (2, 1)
