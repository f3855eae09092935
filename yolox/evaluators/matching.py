"""Which ground truth each detection of an image found, by COCO's rule.

Detections choose by falling score. Each takes the free ground truth that it overlaps most, if IoU
reaches the threshold; a ground truth is taken once. A detection that gets none, but lies on a
difficult object (overlap over the detection's own area, since such an object may be a crowd), is
ignored. All else is found where there is nothing.

Shape suffixes: D detections; G ground truths; N difficult ones; T IoU thresholds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.evaluators.evaluator import EvalSample, ImageDetections

__all__ = ["IGNORED", "NOTHING", "match_image", "pair_up"]

NOTHING, IGNORED = -1, -2

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def pair_up(
    samples: Sequence[EvalSample], detections: Sequence[ImageDetections]
) -> list[tuple[EvalSample, ImageDetections | None]]:
    """Samples with their detections, in the samples' order; None for an image that has no entry.

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    by_image = {entry.image_id: entry for entry in detections}
    if len(by_image) != len(detections):
        raise ValueError("detections: expected at most one entry an image, got more")
    unknown = by_image.keys() - {sample.image_id for sample in samples}
    if unknown:
        raise ValueError(f"detections: image ids {sorted(unknown)[:5]} are not in the data set")
    return [(sample, by_image.get(sample.image_id)) for sample in samples]


def match_image(
    sample: EvalSample,
    found: ImageDetections,
    iou_thresholds: Sequence[float],
    *,
    same_class: bool,
) -> Ints:
    """The ground truth that each detection takes, at each threshold.

    Args:
        sample: the image's ground truth.
        found: its detections.
        iou_thresholds: T of them, in (0, 1].
        same_class: whether a detection looks at the ground truth of its own class only. If not, its
            class decides between equal overlaps.

    Returns:
        int64 (T, D): index of a ground truth, or ``NOTHING`` or ``IGNORED``.
    """
    taken_TD = np.full((len(iou_thresholds), len(found.boxes)), NOTHING, dtype=np.int64)
    if not taken_TD.size or not len(sample.boxes):
        return taken_TD
    inter_DG, area_D1, area_1G = _areas(found.boxes, sample.boxes)
    iou_DG = _ratio(inter_DG, area_D1 + area_1G - inter_DG)
    inside_DG = _ratio(inter_DG, np.broadcast_to(area_D1, inter_DG.shape))
    own_DG = found.classes[:, None] == np.asarray(sample.classes)[None, :]
    if same_class:
        iou_DG[~own_DG] = inside_DG[~own_DG] = -1.0
    difficult = np.asarray(sample.difficult, bool)
    iou_DG[:, difficult] = -1.0
    on_difficult_D = inside_DG[:, difficult].max(axis=1, initial=-1.0)
    order = np.argsort(-found.scores, kind="stable")
    for taken_D, threshold in zip(taken_TD, iou_thresholds, strict=True):
        free_G = np.ones(len(difficult), bool)
        for d in order[(iou_DG[order] >= threshold).any(axis=1)]:
            iou_G = np.where(free_G, iou_DG[d], -1.0)
            best = iou_G.max()
            if best >= threshold:
                equal = np.flatnonzero(iou_G == best)
                own = equal[own_DG[d, equal]]
                taken_D[d] = (own if len(own) else equal)[-1]
                free_G[taken_D[d]] = False
        taken_D[(taken_D == NOTHING) & (on_difficult_D >= threshold)] = IGNORED
    return taken_TD


def _areas(boxes_D4: npt.NDArray[Any], boxes_G4: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Areas of the overlaps (D, G), of the one (D, 1), of the other (1, G) xyxy boxes."""
    det = np.asarray(boxes_D4, np.float64)[:, None, :]
    gt = np.asarray(boxes_G4, np.float64)[None, :, :]
    sides = np.minimum(det[..., 2:], gt[..., 2:]) - np.maximum(det[..., :2], gt[..., :2])
    area_D1 = (det[..., 2:] - det[..., :2]).prod(axis=-1)
    area_1G = (gt[..., 2:] - gt[..., :2]).prod(axis=-1)
    return sides.clip(min=0).prod(axis=-1), area_D1, area_1G


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.zeros_like(part)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
