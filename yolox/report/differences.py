"""Where two models see different things: detections of one that the other has not.

Shape suffixes: D detections of the one, E of the other; 4 xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from yolox.evaluators import ImageDetections
from yolox.utils.boxes import bboxes_iou

__all__ = ["Difference", "above_score", "differences", "most_different"]

MATCH_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What two sets of detections of an image do not share.

    Attributes:
        lost, gained: number of those that only the first, only the second set has.
        weight: sum of their scores.
        lost_rows, gained_rows: which they are among those of `above_score`.
    """

    lost: int
    gained: int
    weight: float
    lost_rows: tuple[int, ...] = ()
    gained_rows: tuple[int, ...] = ()


def above_score(found: ImageDetections, score: float) -> ImageDetections:
    """The detections of this score or a higher one."""
    kept = found.scores >= np.float32(score)
    return ImageDetections(
        image_id=found.image_id,
        boxes=found.boxes[kept],
        scores=found.scores[kept],
        classes=found.classes[kept],
    )


def differences(
    before: Sequence[ImageDetections], after: Sequence[ImageDetections], *, score: float
) -> list[Difference]:
    """How much two models differ, image by image.

    Two detections of a class are the same where their IoU is at least 0.5; each is matched once,
    the best overlap first.

    Args:
        before: detections of the model before.
        after: those of the model after, on the same images in the same order.
        score: least score of a detection that counts.
    """
    result = []
    for first, second in zip(before, after, strict=True):
        first, second = above_score(first, score), above_score(second, score)
        matched_D, matched_E = _matched(first, second)
        weight = first.scores[~matched_D].sum() + second.scores[~matched_E].sum()
        lost, gained = (tuple(np.flatnonzero(~rows).tolist()) for rows in (matched_D, matched_E))
        result.append(
            Difference(
                lost=len(lost),
                gained=len(gained),
                weight=float(weight),
                lost_rows=lost,
                gained_rows=gained,
            )
        )
    return result


def most_different(found: Sequence[Difference], most: int) -> list[int]:
    """Indices of at most so many images, the most different first; equal images are left out."""
    order = sorted(range(len(found)), key=lambda i: (-found[i].weight, i))
    return [i for i in order if found[i].weight > 0][:most]


def _matched(
    first: ImageDetections, second: ImageDetections
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    matched_D, matched_E = np.zeros(len(first.boxes), bool), np.zeros(len(second.boxes), bool)
    if not matched_D.size or not matched_E.size:
        return matched_D, matched_E
    iou_DE = bboxes_iou(torch.from_numpy(first.boxes), torch.from_numpy(second.boxes)).numpy()
    iou_DE = np.where(first.classes[:, None] == second.classes[None, :], iou_DE, 0.0)
    for pair in np.argsort(-iou_DE, axis=None, kind="stable"):
        d, e = divmod(int(pair), len(matched_E))
        if iou_DE[d, e] < MATCH_IOU:
            break
        if not matched_D[d] and not matched_E[e]:
            matched_D[d] = matched_E[e] = True
    return matched_D, matched_E
