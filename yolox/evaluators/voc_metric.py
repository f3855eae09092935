"""PASCAL VOC average precision.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010: section 4.2 for
the matching of detections and the 11-point rule of VOC2007; the area rule is that of VOC2010 and
later. As in the development kit a box's last pixel is part of it, so that width = x2 - x1 + 1: a
box of zero width still has an area and can be found.

Shape suffixes: D detections; G ground truths; T IoU thresholds; C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import pair_up
from yolox.evaluators.precision import ELEVEN_RECALLS, best_precision, precision_at

__all__ = ["VOCResult", "average_precision", "evaluate_voc"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class VOCResult:
    """VOC AP by threshold and class; NaN for a class without an object that counts.

    Attributes:
        iou_thresholds: the T thresholds.
        gt_counts: int64 (C,), objects of each class that count, i.e. are not difficult.
        ap_11point: float64 (T, C), in [0, 1], 11-point rule of VOC2007.
        ap_area: float64 (T, C), in [0, 1], area rule of VOC2010 and later.
    """

    iou_thresholds: tuple[float, ...]
    gt_counts: npt.NDArray[np.int64]
    ap_11point: Floats
    ap_area: Floats


@dataclass(frozen=True, kw_only=True)
class _Matches:
    """All detections of a data set by falling score, each with the ground truth it fits best.

    Attributes:
        classes: (D,), class of each detection.
        best_iou: (D,), IoU with the best ground truth of its class and image, -1 without one.
        best_gt: (D,), that ground truth's number in the data set.
        best_difficult: (D,), whether that ground truth is difficult.
    """

    classes: npt.NDArray[np.int64]
    best_iou: Floats
    best_gt: npt.NDArray[np.int64]
    best_difficult: npt.NDArray[np.bool_]


def evaluate_voc(
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    num_classes: int,
    iou_thresholds: Sequence[float],
) -> VOCResult:
    """AP of each class at each IoU threshold, under both VOC rules.

    A detection is compared with the ground truth of its class and image that it overlaps most. At
    or above the threshold it is right if no better-scored detection has taken that ground truth,
    and does not count at all if that one is difficult; everything else is wrong. Detections of
    equal score stand in the order of ``samples``, then in their own.

    Args:
        samples: the annotated images.
        detections: at most one entry an image; an image without one has no detections.
        num_classes: C.
        iou_thresholds: each in (0, 1].

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    matches = _match(pair_up(samples, detections))
    counted = [np.asarray(s.classes)[~np.asarray(s.difficult, bool)] for s in samples]
    gt_counts = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *counted]), minlength=num_classes
    ).astype(np.int64)
    shape = (len(iou_thresholds), num_classes)
    ap_11point, ap_area = np.full(shape, np.nan), np.full(shape, np.nan)
    for c in range(num_classes):
        if gt_counts[c] == 0:
            continue
        mine = matches.classes == c
        gt, difficult = matches.best_gt[mine], matches.best_difficult[mine]
        for t, threshold in enumerate(iou_thresholds):
            hit = matches.best_iou[mine] >= threshold
            right = np.zeros(len(hit), dtype=bool)
            hits = np.flatnonzero(hit)
            _, first = np.unique(gt[hits], return_index=True)  # the best-scored one of each
            right[hits[first]] = True
            right = right[~(hit & difficult)]
            recall = np.cumsum(right) / gt_counts[c]
            precision = np.cumsum(right) / np.arange(1, len(right) + 1)
            ap_11point[t, c] = average_precision(recall, precision, use_07_metric=True)
            ap_area[t, c] = average_precision(recall, precision, use_07_metric=False)
    return VOCResult(
        iou_thresholds=tuple(iou_thresholds),
        gt_counts=gt_counts,
        ap_11point=ap_11point,
        ap_area=ap_area,
    )


def average_precision(recall: Floats, precision: Floats, *, use_07_metric: bool) -> float:
    """AP of a precision-recall curve, in [0, 1]; 0 for an empty one.

    Args:
        recall: (D,), in [0, 1], not falling.
        precision: (D,), in [0, 1].
        use_07_metric: True for the mean, over recalls 0, 0.1, ..., 1, of the best precision at that
            recall or a higher one; False for the area under the curve of those best precisions.
    """
    if len(recall) == 0:
        return 0.0
    best = best_precision(precision)
    if use_07_metric:
        return float(precision_at(ELEVEN_RECALLS, recall, best).mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def _match(pairs: Sequence[tuple[EvalSample, ImageDetections | None]]) -> _Matches:
    classes, scores, best_iou, best_gt, best_difficult = [], [], [], [], []
    offset = 0
    for sample, found in pairs:
        gts = len(sample.boxes)
        if found is not None and len(found.boxes):
            count = len(found.boxes)
            classes.append(found.classes)
            scores.append(found.scores)
            if gts:
                iou_DG = _inclusive_iou(found.boxes, sample.boxes)
                iou_DG[found.classes[:, None] != np.asarray(sample.classes)[None, :]] = -1.0
                best_D = iou_DG.argmax(axis=1)
                best_iou.append(iou_DG[np.arange(count), best_D])
                best_gt.append(best_D + offset)
                best_difficult.append(np.asarray(sample.difficult, bool)[best_D])
            else:
                best_iou.append(np.full(count, -1.0))
                best_gt.append(np.full(count, -1))
                best_difficult.append(np.zeros(count, bool))
        offset += gts
    if not classes:
        none = np.zeros(0)
        return _Matches(
            classes=none.astype(np.int64),
            best_iou=none,
            best_gt=none.astype(np.int64),
            best_difficult=none.astype(bool),
        )
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _Matches(
        classes=np.concatenate(classes)[order],
        best_iou=np.concatenate(best_iou)[order],
        best_gt=np.concatenate(best_gt)[order],
        best_difficult=np.concatenate(best_difficult)[order],
    )


def _inclusive_iou(boxes_D4: npt.NDArray[Any], boxes_G4: npt.NDArray[Any]) -> Floats:
    """IoU (D, G) of xyxy boxes whose last pixel belongs to them."""
    det = np.asarray(boxes_D4, np.float64)[:, None, :]
    gt = np.asarray(boxes_G4, np.float64)[None, :, :]
    sides = np.minimum(det[..., 2:], gt[..., 2:]) - np.maximum(det[..., :2], gt[..., :2]) + 1
    inter_DG = sides.clip(min=0).prod(axis=-1)
    area_D1 = (det[..., 2:] - det[..., :2] + 1).clip(min=0).prod(axis=-1)
    area_1G = (gt[..., 2:] - gt[..., :2] + 1).clip(min=0).prod(axis=-1)
    union_DG = area_D1 + area_1G - inter_DG
    iou_DG: Floats = np.zeros_like(inter_DG)
    np.divide(inter_DG, union_DG, out=iou_DG, where=union_DG > 0)
    return iou_DG
