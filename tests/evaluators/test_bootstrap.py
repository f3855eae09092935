"""Intervals of AP: of the right AP, as wide as the images differ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from yolox.evaluators import (
    FEWEST_IMAGES,
    ImageDetections,
    Timing,
    ap_draws,
    ap_spreads,
    difference_of,
    evaluate_detections,
)
from yolox.evaluators.bootstrap import mean_aps, pool_detections
from yolox.evaluators.results import Headline

TIMING = Timing(forward_ms=1.0, postprocess_ms=1.0, images=1)


@dataclass
class _Sample:
    image_id: int
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    name: str = "a"
    height: int = 500
    width: int = 500
    difficult: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(2, bool))


def _scene(images: int, seed: int = 0) -> tuple[list[_Sample], list[ImageDetections]]:
    """Two objects an image; detections that are moved, missing and made up, all by chance."""
    rng = np.random.default_rng(seed)
    samples, found = [], []
    for number in range(images):
        corners = rng.uniform(0, 300, (2, 2))
        boxes = np.hstack([corners, corners + rng.uniform(50, 150, (2, 2))]).astype(np.float32)
        classes = rng.integers(0, 2, 2)
        samples.append(_Sample(number, boxes, classes))
        extra = np.float32([[400, 400, 450, 450]])
        moved = np.vstack([boxes + rng.normal(0, 6, boxes.shape), extra]).astype(np.float32)
        kept = rng.random(3) < 0.8
        scores = np.sort(rng.random(3).astype(np.float32))[::-1][kept]
        found.append(
            ImageDetections(
                image_id=number,
                boxes=moved[kept],
                scores=scores,
                classes=np.append(classes, 0)[kept],
            )
        )
    return samples, found


@pytest.mark.parametrize("headline", ["coco", "voc07", "voc12"])
def test_undrawn_images_have_the_ap_of_the_evaluation(headline: Headline) -> None:
    samples, found = _scene(30)
    objects = np.array([np.bincount(sample.classes, minlength=2) for sample in samples], float)
    (ap,) = mean_aps(pool_detections(samples, found), objects, np.ones((1, 30)), headline)
    expected = evaluate_detections(samples, found, ("a", "b"), headline=headline, timing=TIMING)
    # VOC counts the last pixel of a box, which moves an overlap a little.
    assert ap == pytest.approx(expected.ap50_95, abs=1e-6 if headline == "coco" else 0.02)


def test_a_draw_is_the_evaluation_of_the_images_that_it_holds() -> None:
    samples, found = _scene(12)
    objects = np.array([np.bincount(sample.classes, minlength=2) for sample in samples], float)
    weights = np.array([[2, 0, 1, 0, 3, 1, 0, 1, 1, 1, 0, 2]], float)
    (ap,) = mean_aps(pool_detections(samples, found), objects, weights, "coco")
    rows = [i for i, count in enumerate(weights[0]) for _ in range(int(count))]
    drawn = [_Sample(n, samples[i].boxes, samples[i].classes) for n, i in enumerate(rows)]
    seen = [
        ImageDetections(
            image_id=n, boxes=found[i].boxes, scores=found[i].scores, classes=found[i].classes
        )
        for n, i in enumerate(rows)
    ]
    expected = evaluate_detections(drawn, seen, ("a", "b"), headline="coco", timing=TIMING)
    assert ap == pytest.approx(expected.ap50_95, abs=0.01)  # equal scores come in another order


def test_more_images_make_it_surer_and_the_same_model_is_the_same() -> None:
    widths = []
    for images in (20, 200):
        samples, found = _scene(images)
        result = ap_spreads(samples, [found, found], 2, "coco")
        assert result
        (one, other), change = result
        assert one == other
        assert one.low < 0 < one.high
        assert (change.low, change.high) == (0, 0)
        widths.append(one.high - one.low)
    assert widths[1] < 0.6 * widths[0]
    assert ap_spreads(samples, [found], 2, "coco") == ap_spreads(samples, [found], 2, "coco")


def test_a_perfect_model_is_sure_and_few_images_tell_nothing() -> None:
    samples, _ = _scene(FEWEST_IMAGES)
    perfect = [
        ImageDetections(
            image_id=s.image_id, boxes=s.boxes, scores=np.float32([0.9, 0.8]), classes=s.classes
        )
        for s in samples
    ]
    blind = [
        ImageDetections(
            image_id=s.image_id,
            boxes=s.boxes[:0],
            scores=np.zeros(0, np.float32),
            classes=s.classes[:0],
        )
        for s in samples
    ]
    result = ap_spreads(samples, [perfect, blind], 2, "coco")
    assert result
    assert all((s.low, s.high) == (0, 0) for s in (*result[0], result[1]))
    assert ap_spreads(samples[1:], [perfect[1:]], 2, "coco") is None


def _one_object_an_image(hits: list[bool]) -> tuple[list[_Sample], list[ImageDetections]]:
    """Images with one object of one class, found exactly or not at all."""
    box = np.float32([[10, 10, 60, 60]])
    samples = [
        _Sample(n, box, np.zeros(1, np.int64), difficult=np.zeros(1, bool))
        for n in range(len(hits))
    ]
    found = [
        ImageDetections(
            image_id=n,
            boxes=box[: int(hit)],
            scores=np.float32([0.9])[: int(hit)],
            classes=np.zeros(int(hit), np.int64),
        )
        for n, hit in enumerate(hits)
    ]
    return samples, found


def test_a_paired_difference_is_that_of_the_drawn_images() -> None:
    """By hand: with one object an image and no false ones, AP is the share that is found.

    By the area rule it is so exactly. One model finds images 0 to 5, the other 0 to 8: they differ
    in three of ten images, so the difference of a draw is the share of these three in it.
    """
    samples, first = _one_object_an_image([True] * 6 + [False] * 4)
    _, second = _one_object_an_image([True] * 9 + [False])
    aps = ap_draws(samples, [first, second], 1, "voc12", draws=500, seed=3)
    assert aps.shape == (2, 501)
    assert aps[:, 0] == pytest.approx([0.6, 0.9])
    drawn = np.random.default_rng(3).multinomial(10, np.full(10, 0.1), 500) / 10
    assert aps[0, 1:] == pytest.approx(drawn[:, :6].sum(axis=1))
    difference = difference_of(*aps)
    by_hand = drawn[:, 6:9].sum(axis=1)
    assert difference.value == pytest.approx(0.3)
    assert (difference.low, difference.high) == pytest.approx(
        tuple(np.quantile(by_hand, [0.025, 0.975]))
    )
    assert difference.share == pytest.approx(((by_hand > 0) + (by_hand == 0) / 2).mean())
    # Three of ten images may all be missing from a draw, so ten images do not settle it.
    assert not difference.is_real
    assert "no difference that these images can tell" in difference.text()


def test_what_both_models_miss_alike_does_not_blur_their_difference() -> None:
    samples, first = _one_object_an_image([n % 2 == 0 for n in range(200)])
    _, second = _one_object_an_image([n % 2 == 0 or n % 5 == 1 for n in range(200)])
    aps = ap_draws(samples, [first, second], 1, "voc12", draws=300)
    difference = difference_of(*aps)
    assert difference.value == pytest.approx(0.1)
    assert difference.is_real
    assert difference.share == 1
    assert difference.high - difference.low < 0.7 * np.ptp(np.quantile(aps[0, 1:], [0.025, 0.975]))
    assert difference.text().startswith("+10.0 points (+")
    assert difference.text().endswith("): real")
    back = difference_of(aps[1], aps[0])
    assert (back.value, back.low, back.high) == pytest.approx(
        (-difference.value, -difference.high, -difference.low)
    )
    same = difference_of(aps[0], aps[0])
    assert (same.value, same.low, same.high, same.share) == (0, 0, 0, 0.5)
    assert not same.is_real
