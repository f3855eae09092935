"""Proof of an export: another runtime computes what PyTorch does, down to the detections.

Shape suffixes: B images, A anchor points, C classes, k detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolox.utils.boxes import bboxes_iou, cxcywh2xyxy, postprocess


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far two runtimes may be apart.

    Attributes:
        relative: difference of outputs over the largest value.
        iou, pixels, score: between two detections that are the same, the least IoU, or else the
            most that a side may be moved where that is more (of a sliver, a hair's breadth halves
            the IoU), and the most that a probability may change.
        unmatched: part of the detections that may not be the same.
    """

    relative: float
    iou: float
    pixels: float
    score: float
    unmatched: float


# float32 in another order of summation, batch norms folded, gives up to some 1e-5; a wrong
# operation, weight or layout is far above this. Weights rounded to float16 have three digits; over
# the depth of a YOLOX-nano that moves single scores by 0.1, boxes likewise, and AP hardly.
FP32 = Tolerance(relative=1e-3, iou=0.999, pixels=0.05, score=1e-3, unmatched=0.005)
FP16 = Tolerance(relative=0.2, iou=0.8, pixels=1, score=0.1, unmatched=0.1)

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two runtimes are apart, over all images.

    Attributes:
        images: how many were compared.
        box_abs, box_rel: largest difference of a box value, and relative to the largest such value.
        score_abs, score_rel: likewise of objectness and class probabilities.
        detections: how many PyTorch has after NMS.
        unmatched: detections of either that the other does not have: where two boxes are as good,
            NMS may keep the one or the other, and a score may be exactly the least or as high for
            two classes, so they are looked for among what NMS chose from.
        tolerance: what is allowed.
    """

    images: int
    box_abs: float
    box_rel: float
    score_abs: float
    score_rel: float
    detections: int
    unmatched: int
    tolerance: Tolerance = FP32

    @property
    def problem(self) -> str:
        """What is beyond tolerance; empty when the two compute the same."""
        problems = [
            f"{what} differ by {worst:.1e} relative (at most {self.tolerance.relative:.0e})"
            for what, worst in (("boxes", self.box_rel), ("scores", self.score_rel))
            if not worst <= self.tolerance.relative
        ]
        if self.unmatched > self.tolerance.unmatched * self.detections:
            problems.append(f"{self.unmatched} of {self.detections} detections are not the same")
        return "; ".join(problems)

    def __str__(self) -> str:
        images = f"{self.images} image{'s' * (self.images != 1)}"
        same = self.detections - self.unmatched
        return (
            f"{images}: boxes differ by at most {self.box_abs:.1e} pixels "
            f"({self.box_rel:.1e} relative), scores by {self.score_abs:.1e} "
            f"({self.score_rel:.1e}); {same} of {self.detections} detections are the same"
        )


@torch.no_grad()
def measure_parity(
    reference: Run,
    candidate: Run,
    batches: Iterable[Tensor],
    *,
    decode: Callable[[Tensor, tuple[int, int]], Tensor],
    num_classes: int,
    conf: float,
    nms: float,
    tolerance: Tolerance = FP32,
) -> Parity:
    """Run both on the same images and compare outputs and detections.

    Args:
        reference: images (B, 3, H, W) → predictions (B, A, 5 + C).
        candidate: the same of the other model.
        batches: images, float32, at least one.
        decode: predictions of images of a (height, width) → boxes in pixels and probabilities,
            for NMS.
        num_classes: C.
        conf: least score of a detection, in [0, 1].
        nms: IoU of NMS, in [0, 1].
        tolerance: what is allowed.
    """
    images = detections = unmatched = 0
    # Of boxes and of scores: largest difference, largest value.
    worst, scale = torch.zeros(2), torch.zeros(2)
    for batch in batches:
        expected, got = reference(batch), candidate(batch)
        if got.shape != expected.shape:
            raise ValueError(f"output {tuple(got.shape)}, expected {tuple(expected.shape)}")
        images += len(batch)
        for part, columns in enumerate((slice(0, 4), slice(4, None))):
            difference = largest_difference(expected[..., columns], got[..., columns])
            worst[part] = max(worst[part], difference)
            scale[part] = max(scale[part], expected[..., columns].abs().max())
        size = (batch.shape[2], batch.shape[3])
        decoded = [decode(x, size) for x in (expected, got)]
        kept = [_near_image(postprocess(x, num_classes, conf, nms), size) for x in decoded]
        choice = [_near_image(_possible_detections(x, conf, tolerance), size) for x in decoded]
        for ours, theirs, our_choice, their_choice in zip(*kept, *choice, strict=True):
            detections += 0 if ours is None else len(ours)
            unmatched += count_missing(ours, their_choice, tolerance)
            unmatched += count_missing(theirs, our_choice, tolerance)
    relative = worst / scale.clamp(min=torch.finfo(torch.float32).tiny)
    return Parity(
        images=images,
        box_abs=float(worst[0]),
        box_rel=float(relative[0]),
        score_abs=float(worst[1]),
        score_rel=float(relative[1]),
        detections=detections,
        unmatched=unmatched,
        tolerance=tolerance,
    )


def _near_image(found: Sequence[Tensor | None], size: tuple[int, int]) -> list[Tensor | None]:
    """The same rows, their boxes cut off at one image's width and height outside the image.

    The size of a box is an exponential: what a model that has not learned says of one far outside
    is not told apart by rounding, and matters to nobody.
    """
    height, width = size
    least = torch.tensor([-width, -height, -width, -height])
    near: list[Tensor | None] = []
    for rows in found:
        if rows is None:
            near.append(None)
            continue
        low = least.to(rows)
        corners = rows[:, :4].clamp(min=low, max=-2 * low)
        near.append(torch.cat([corners, rows[:, 4:]], dim=1))
    return near


def _possible_detections(decoded: Tensor, conf: float, tolerance: Tolerance) -> list[Tensor]:
    """Rows like `postprocess`'s, before NMS, an entry an image: what rounding may decide is there.

    That is a box a class whose probability is the highest or as good, from a score just below the
    least on, but no less than half of it: most of the anchors have next to none.
    """
    least = max(conf - tolerance.score, conf / 2)
    found = []
    for prediction in decoded.to(torch.promote_types(decoded.dtype, torch.float32)):
        boxes, objectness, classes = prediction.split((4, 1, prediction.shape[1] - 5), dim=1)
        is_best = classes >= classes.amax(dim=1, keepdim=True) - tolerance.score
        is_enough = objectness * classes >= least
        anchor, label = (is_best & is_enough).nonzero(as_tuple=True)
        scores = [objectness[anchor, 0], classes[anchor, label], label.to(decoded.dtype)]
        corners = cxcywh2xyxy(boxes[anchor])
        found.append(torch.cat([corners, torch.stack(scores, dim=1)], dim=1))
    return found


@torch.no_grad()
def measure_detections(
    reference: Run,
    candidate: Run,
    batches: Iterable[Tensor],
    *,
    num_classes: int,
    conf: float,
    nms: float,
    tolerance: Tolerance = FP32,
) -> tuple[int, int]:
    """How many detections the reference has, and how many of either the other does not have.

    Of two boxes with as good a score that overlap, NMS may keep the one or the other: such a one is
    not missing.

    Args:
        reference: images → decoded predictions, which go through `postprocess`.
        candidate: images → predictions of which all that are finite were kept by its own NMS.
        batches: images, float32 (B, 3, H, W).
        num_classes: of both models.
        conf: least score of a detection, in [0, 1].
        nms: IoU of NMS, in [0, 1].
        tolerance: how far a detection of one may be from the other's.
    """
    detections = unmatched = 0
    for batch in batches:
        size = (batch.shape[2], batch.shape[3])
        expected = _near_image(postprocess(reference(batch), num_classes, conf, nms), size)
        # An IoU of 1 suppresses nothing: what the candidate kept is all compared.
        got = _near_image(postprocess(candidate(batch), num_classes, 0.0, 1.0), size)
        for ours, theirs in zip(expected, got, strict=True):
            detections += 0 if ours is None else len(ours)
            unmatched += count_missing(ours, theirs, tolerance, tied_iou=nms)
            unmatched += count_missing(theirs, ours, tolerance, tied_iou=nms)
    return detections, unmatched


def largest_difference(a: Tensor, b: Tensor) -> Tensor:
    """Largest absolute difference; infinite where one is not finite and the other differs."""
    return torch.where(a == b, 0, (a - b).abs()).nan_to_num(torch.inf, torch.inf).max()


def count_missing(
    a: Tensor | None,
    b: Tensor | None,
    tolerance: Tolerance = FP32,
    *,
    tied_iou: float | None = None,
) -> int:
    """Rows (k, 7) of `postprocess` that have no counterpart of class, box and score in others.

    With ``tied_iou`` one of the same class and an equal score that overlaps by more than this will
    do, too.
    """
    if a is None or b is None:
        return 0 if a is None else len(a)
    moved = (a[:, None, :4] - b[None, :, :4]).abs()
    # A shift of this much along one side alone leaves that IoU.
    sides = (a[:, 2:4] - a[:, :2]).repeat(1, 2)
    slack = ((1 - tolerance.iou) / 2 * sides).clamp(min=tolerance.pixels)
    is_near = (moved <= slack[:, None]).all(dim=2)
    iou = bboxes_iou(a[:, :4], b[:, :4])
    is_of_class = a[:, None, 6] == b[None, :, 6]
    same = (
        is_of_class
        & ((iou >= tolerance.iou) | is_near)
        & ((a[:, None, 4:6] - b[None, :, 4:6]).abs().amax(dim=2) <= tolerance.score)
    )
    if tied_iou is not None:
        scores = [rows[:, 4] * rows[:, 5] for rows in (a, b)]
        is_tie = (scores[0][:, None] - scores[1][None, :]).abs() <= FP32.score
        same |= is_of_class & is_tie & (iou > tied_iou)
    return int((~same.any(dim=1)).sum())


def sample_scene(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """A BGR picture (H, W, 3): shaded background, solid shapes, noise. Always the same for a seed.

    Plain noise excites a detector in a way that no photograph does.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.uniform(40, 220, (4, 4, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(8):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, width // 4 + 4)), int(rng.integers(4, height // 4 + 4)))
        colour = rng.uniform(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.ellipse(scene, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            corner = (centre[0] + axes[0], centre[1] + axes[1])
            cv2.rectangle(scene, centre, corner, colour, -1)
    scene += rng.normal(0, 4, scene.shape)
    picture: NDArray[np.uint8] = scene.clip(0, 255).round().astype(np.uint8)
    return picture
