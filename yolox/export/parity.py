"""Proof of an export: another runtime computes what PyTorch does, down to the detections.

Shape suffixes: B images, A anchor points, C classes, k detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolox.utils.boxes import bboxes_iou, postprocess

# Relative to the largest value. float32 in another order of summation, batch norms folded, gives up
# to some 1e-5; a wrong operation, weight or layout is far above this.
TOLERANCE = 1e-3
# A box exactly at the least score or the IoU of NMS may fall on either side: at most this part.
UNMATCHED = 0.005
_SAME_IOU, _SAME_SCORE = 0.999, 1e-3

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two runtimes are apart, over all images.

    Attributes:
        images: how many were compared.
        box_abs, box_rel: largest difference of a box value, and relative to the largest such value.
        score_abs, score_rel: likewise of objectness and class probabilities.
        detections: how many PyTorch has after NMS.
        unmatched: detections of either that the other does not have.
    """

    images: int
    box_abs: float
    box_rel: float
    score_abs: float
    score_rel: float
    detections: int
    unmatched: int

    @property
    def problem(self) -> str:
        """What is beyond tolerance; empty when the two compute the same."""
        problems = [
            f"{what} differ by {worst:.1e} relative (at most {TOLERANCE:.0e})"
            for what, worst in (("boxes", self.box_rel), ("scores", self.score_rel))
            if not worst <= TOLERANCE
        ]
        if self.unmatched > UNMATCHED * self.detections:
            problems.append(f"{self.unmatched} of {self.detections} detections are not the same")
        return "; ".join(problems)

    def __str__(self) -> str:
        return (
            f"{self.images} images: boxes differ by at most {self.box_abs:.1e} "
            f"({self.box_rel:.1e} relative), scores by {self.score_abs:.1e} "
            f"({self.score_rel:.1e}); {self.detections} detections, {self.unmatched} not the same"
        )


@torch.no_grad()
def measure_parity(
    reference: Run,
    candidate: Run,
    batches: Iterable[Tensor],
    *,
    decode: Run,
    num_classes: int,
    conf: float,
    nms: float,
) -> Parity:
    """Run both on the same images and compare outputs and detections.

    Args:
        reference, candidate: images (B, 3, H, W) → predictions (B, A, 5 + C).
        batches: images, float32, at least one.
        decode: predictions → boxes in pixels and probabilities, for NMS.
        num_classes, conf, nms: as `postprocess` takes them.
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
        found = (postprocess(decode(x), num_classes, conf, nms) for x in (expected, got))
        for ours, theirs in zip(*found, strict=True):
            detections += 0 if ours is None else len(ours)
            unmatched += count_unmatched(ours, theirs)
    relative = worst / scale.clamp(min=torch.finfo(torch.float32).tiny)
    return Parity(
        images=images,
        box_abs=float(worst[0]),
        box_rel=float(relative[0]),
        score_abs=float(worst[1]),
        score_rel=float(relative[1]),
        detections=detections,
        unmatched=unmatched,
    )


def largest_difference(a: Tensor, b: Tensor) -> Tensor:
    """Largest absolute difference; infinite where one is not finite and the other differs."""
    return torch.where(a == b, 0, (a - b).abs()).nan_to_num(torch.inf, torch.inf).max()


def count_unmatched(a: Tensor | None, b: Tensor | None) -> int:
    """Rows (k, 7) of `postprocess` in either that have no counterpart of class, box and score."""
    if a is None or b is None:
        return sum(len(rows) for rows in (a, b) if rows is not None)
    same = (
        (a[:, None, 6] == b[None, :, 6])
        & (bboxes_iou(a[:, :4], b[:, :4]) >= _SAME_IOU)
        & ((a[:, None, 4:6] - b[None, :, 4:6]).abs().amax(dim=2) <= _SAME_SCORE)
    )
    return int((~same.any(dim=1)).sum() + (~same.any(dim=0)).sum())


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
