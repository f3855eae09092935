"""How sure an AP is: what it would be on other images like these.

The evaluation images are drawn anew with replacement, as often as there are images, and AP is taken
of each draw (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979). This tells of the
choice of images alone: another training run is another matter.

Shape suffixes: I images; C classes; D detections; T IoU thresholds; R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolox.evaluators.curves import RECALLS
from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import IGNORED, NOTHING, match_image, pair_up
from yolox.evaluators.precision import (
    ELEVEN_RECALLS,
    IOU_THRESHOLDS,
    best_precision,
    precision_at,
)
from yolox.evaluators.results import Headline

__all__ = ["FEWEST_IMAGES", "Difference", "Spread", "ap_draws", "ap_spreads", "difference_of"]

FEWEST_IMAGES = 10  # of fewer a draw says next to nothing
DRAWS = 200
LEVEL = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far AP50-95 of 95 % of the draws lies from that of the images themselves.

    Attributes:
        low, high: added to the AP, the ends of its interval; usually ``low`` <= 0 <= ``high``.
    """

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A model's AP50-95 minus another's, on the same images.

    Attributes:
        value: on the images themselves.
        low, high: ends of the interval that 95 % of the draws lie in.
        share: of the draws in which the sign is that of `value`, in [0, 1]; a draw without any
            difference counts half.
    """

    value: float
    low: float
    high: float
    share: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0: other images like these would show it as well."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """In points of AP, with its interval: ``+1.2 points (0.3 to 2.1): real``."""
        verdict = "real" if self.is_real else "no difference that these images can tell"
        return (
            f"{100 * self.value:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}): "
            f"{verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Detections by falling score, and what each is at every threshold.

    Attributes:
        classes, images: int64 (D,), class index and position of the image.
        right, counted: bool (T, D); what counts and is not right is wrong.
    """

    classes: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]


def ap_spreads(
    samples: Sequence[EvalSample],
    models: Sequence[Sequence[ImageDetections]],
    num_classes: int,
    headline: Headline,
    *,
    seed: int = 0,
) -> tuple[list[Spread], Spread] | None:
    """The spread of each model's AP50-95, and that of the last one's minus the first one's.

    All models are drawn on the same images, so that what is common to them falls out of the
    difference. Detections are matched by COCO's rule, without its limit of 100 an image.

    Args:
        samples: the annotated images.
        models: detections of each model, at most one entry an image.
        num_classes: C.
        headline: the rule by which AP is taken of precision and recall.
        seed: of the draws.

    Returns:
        None for fewer than `FEWEST_IMAGES` images.
    """
    if len(samples) < FEWEST_IMAGES:
        return None
    aps_MR = ap_draws(samples, models, num_classes, headline, seed=seed)
    return [_spread(ap_R) for ap_R in aps_MR], _spread(aps_MR[-1] - aps_MR[0])


def ap_draws(
    samples: Sequence[EvalSample],
    models: Sequence[Sequence[ImageDetections]],
    num_classes: int,
    headline: Headline,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Floats:
    """AP50-95 of each model on the images, and on as many drawn anew with replacement.

    Args:
        samples: the annotated images.
        models: detections of each model, at most one entry an image.
        num_classes: C.
        headline: the rule by which AP is taken of precision and recall.
        draws: how often; the same draw is the same images for all models.
        seed: of the draws.

    Returns:
        float64 (models, 1 + draws), the first column on the images themselves. NaN where a draw
        has no object. Over several data sets, of a fold each, the mean of what this returns with
        different seeds is the mean AP with its draws.
    """
    images = len(samples)
    drawn_RI = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)
    weights_RI = np.vstack([np.ones((1, images)), drawn_RI])  # the first row: the images themselves
    objects_IC = np.zeros((images, num_classes))
    for i, sample in enumerate(samples):
        counted = np.asarray(sample.classes)[~np.asarray(sample.difficult, bool)]
        objects_IC[i] = np.bincount(counted, minlength=num_classes)
    pools = [pool_detections(samples, found) for found in models]
    return np.stack([mean_aps(pool, objects_IC, weights_RI, headline) for pool in pools])


def difference_of(first_R: Floats, second_R: Floats) -> Difference:
    """The second model's AP minus the first one's, and how sure it is (a paired bootstrap).

    Args:
        first_R: float64 (1 + draws,), a row of `ap_draws`.
        second_R: likewise, of the same draws.
    """
    apart_R = second_R - first_R
    value, drawn_R = float(apart_R[0]), apart_R[1:][~np.isnan(apart_R[1:])]
    low, high = np.quantile(drawn_R, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    side_R = np.sign(drawn_R) * (np.sign(value) or 1.0)
    return Difference(
        value=value, low=float(low), high=float(high), share=float((side_R + 1).mean() / 2)
    )


def _spread(ap_R: Floats) -> Spread:
    ends = np.nanquantile(ap_R[1:] - ap_R[0], ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Spread(low=float(ends[0]), high=float(ends[1]))


def pool_detections(samples: Sequence[EvalSample], detections: Sequence[ImageDetections]) -> _Pool:
    """The detections of all images by falling score, and which of them count and are right."""
    rows = []
    for i, (sample, found) in enumerate(pair_up(samples, detections)):
        if found is not None:
            taken_TD = match_image(sample, found, IOU_THRESHOLDS, same_class=True)
            rows.append((found.scores, found.classes, np.full(len(found.scores), i), taken_TD))
    empty = np.zeros(0, np.int64)
    scores = np.concatenate([np.zeros(0, np.float32), *(row[0] for row in rows)])
    order = np.argsort(-scores, kind="stable")
    none = np.zeros((len(IOU_THRESHOLDS), 0), np.int64)
    taken_TD = np.concatenate([none, *(row[3] for row in rows)], axis=1)[:, order]
    return _Pool(
        classes=np.concatenate([empty, *(row[1] for row in rows)])[order],
        images=np.concatenate([empty, *(row[2] for row in rows)])[order],
        right=(taken_TD != NOTHING) & (taken_TD != IGNORED),
        counted=taken_TD != IGNORED,
    )


def mean_aps(pool: _Pool, objects_IC: Floats, weights_RI: Floats, headline: Headline) -> Floats:
    """Mean AP of each draw over its classes that have objects, (R,)."""
    objects_RC = weights_RI @ objects_IC
    ap_RC = np.full(objects_RC.shape, np.nan)
    for c in np.flatnonzero(objects_IC.sum(axis=0)):
        mine = pool.classes == c
        images, right_TD = pool.images[mine], pool.right[:, mine]
        counted_TD = pool.counted[:, mine]
        for r in np.flatnonzero(objects_RC[:, c]):
            weight_D = weights_RI[r, images]
            hits_TD = np.cumsum(right_TD * weight_D, axis=1)
            all_TD = np.cumsum(counted_TD * weight_D, axis=1)
            precision_TD = hits_TD / np.maximum(all_TD, 1)
            ap_RC[r, c] = _mean_ap(hits_TD / objects_RC[r, c], precision_TD, headline)
    mean_R: Floats = np.nanmean(ap_RC, axis=1)
    return mean_R


def _mean_ap(recall_TD: Floats, precision_TD: Floats, headline: Headline) -> float:
    best_TD = best_precision(precision_TD)
    if headline == "voc12":
        return float((np.diff(recall_TD, prepend=0.0) * best_TD).sum(axis=1).mean())
    points = RECALLS if headline == "coco" else ELEVEN_RECALLS
    # Sums of ones are exact, their quotient with the number of objects is rounded.
    curves = zip(recall_TD, best_TD, strict=True)
    aps = [precision_at(points - 1e-12, recall_D, best_D).mean() for recall_D, best_D in curves]
    return float(np.mean(aps))
