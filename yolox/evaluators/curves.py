"""Precision and recall at every score: curves, and the score that serves best.

A detection is matched within its class by the rule of :mod:`yolox.evaluators.matching`, without
COCO's limit of 100 detections an image. F1 = 2PR / (P + R) (van Rijsbergen, "Information
Retrieval", 1979, chapter 7, with equal weights).

Shape suffixes: C classes; R recalls 0, 0.01, ..., 1; S scores 0, 0.001, ..., 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import IGNORED, NOTHING, match_image, pair_up
from yolox.evaluators.precision import best_precision, precision_at

__all__ = ["RECALLS", "SCORES", "Curves", "OperatingPoint", "precision_recall_curves"]

RECALLS = np.linspace(0, 1, 101)
SCORES = np.linspace(0, 1, 1001)

Floats = npt.NDArray[np.float64]
_Pooled = list[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a least score gives; all in [0, 1].

    Attributes:
        score: detections of this score or a higher one are kept.
        precision, recall, f1: of a class, or the mean over the classes that have objects.
    """

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Precision and recall of each class at one IoU threshold; NaN for a class without objects.

    Attributes:
        iou: the threshold.
        objects: int64 (C,), objects that count, i.e. are not difficult.
        precision_at_recall: float64 (C, R), the best precision at this recall or a higher one.
        precision, recall, f1: float64 (C, S), when detections of this score or a higher one are
            kept. Precision is NaN where none is.
    """

    iou: float
    objects: npt.NDArray[np.int64]
    precision_at_recall: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    def ap(self, class_index: int) -> float | None:
        """Mean precision over the recalls, None for a class without objects."""
        ap = float(self.precision_at_recall[class_index].mean())
        return None if np.isnan(ap) else ap

    def best(self, class_index: int) -> OperatingPoint | None:
        """Where F1 of a class is highest, None where it has no objects or none was found."""
        return self._best_of([class_index])

    def best_overall(self) -> OperatingPoint | None:
        """Where the mean F1 of the classes that have objects is highest; None as for a class."""
        return self._best_of(np.flatnonzero(self.objects).tolist())

    def _best_of(self, classes: list[int]) -> OperatingPoint | None:
        f1_S = self.f1[classes].mean(axis=0) if classes else np.zeros(len(SCORES))
        top = f1_S.max()
        if np.isnan(top) or top == 0:
            return None
        # Equally good scores are an interval between two detections: its middle is the safest.
        first = int(f1_S.argmax())
        s = first + (int(np.argmin(np.append(f1_S[first:], -1.0) == top)) - 1) // 2
        precision_C = self.precision[classes, s]
        return OperatingPoint(
            score=float(SCORES[s]),
            precision=float(precision_C[~np.isnan(precision_C)].mean()),
            recall=float(self.recall[classes, s].mean()),
            f1=float(top),
        )


def precision_recall_curves(
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    num_classes: int,
    iou_thresholds: Sequence[float] = (0.5, 0.75),
) -> tuple[Curves, ...]:
    """The curves at each IoU threshold.

    Args:
        samples: the annotated images.
        detections: at most one entry an image; an image without one has no detections.
        num_classes: C.
        iou_thresholds: in (0, 1].

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    objects_C = np.zeros(num_classes, np.int64)
    pooled: list[_Pooled] = [[] for _ in iou_thresholds]
    # By image id, as pycocotools does: the order decides between detections of equal score.
    for sample, found in sorted(pair_up(samples, detections), key=lambda pair: pair[0].image_id):
        counted = np.asarray(sample.classes)[~np.asarray(sample.difficult, bool)]
        objects_C += np.bincount(counted, minlength=num_classes)
        if found is None:
            continue
        taken_TD = match_image(sample, found, iou_thresholds, same_class=True)
        for taken_D, rows in zip(taken_TD, pooled, strict=True):
            kept = taken_D != IGNORED
            rows.append((found.scores[kept], found.classes[kept], taken_D[kept] != NOTHING))
    return tuple(
        _curves(iou, objects_C, rows) for iou, rows in zip(iou_thresholds, pooled, strict=True)
    )


def _curves(iou: float, objects_C: npt.NDArray[np.int64], rows: _Pooled) -> Curves:
    scores, classes, right = (
        np.concatenate([np.zeros(0, kind), *(row[i] for row in rows)])
        for i, kind in enumerate((np.float32, np.int64, bool))
    )
    order = np.argsort(-scores, kind="stable")
    scores, classes, right = scores[order], classes[order], right[order]
    shape = (len(objects_C), len(SCORES))
    precision_CS, recall_CS, f1_CS = (np.full(shape, np.nan) for _ in range(3))
    precision_CR = np.full((len(objects_C), len(RECALLS)), np.nan)
    for c in np.flatnonzero(objects_C):
        mine = classes == c
        hits = np.cumsum(right[mine])
        precision_CR[c] = _interpolated(hits, objects_C[c])
        # In single precision, as the detector compares: 0.7 keeps a score that prints as 0.7.
        kept_S = np.searchsorted(-scores[mine], -SCORES.astype(np.float32), side="right")
        hits_S = np.append(0, hits)[kept_S]
        recall_CS[c] = hits_S / objects_C[c]
        f1_CS[c] = 2 * hits_S / (kept_S + objects_C[c])
        np.divide(hits_S, kept_S, out=precision_CS[c], where=kept_S > 0)
    return Curves(
        iou=iou,
        objects=objects_C,
        precision_at_recall=precision_CR,
        precision=precision_CS,
        recall=recall_CS,
        f1=f1_CS,
    )


def _interpolated(hits: npt.NDArray[np.int64], objects: int) -> Floats:
    """Best precision at each recall or a higher one, (R,)."""
    precision = hits / np.arange(1, len(hits) + 1)
    return precision_at(RECALLS, hits / objects, best_precision(precision))
