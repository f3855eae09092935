"""Precision by recall: the rule that all average precisions begin with.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2.

Shape suffixes: D detections, by falling score; P recalls that are asked for.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["ELEVEN_RECALLS", "IOU_THRESHOLDS", "best_precision", "precision_at"]

IOU_THRESHOLDS = tuple(iou / 100 for iou in range(50, 100, 5))  # that AP50-95 is the mean over
ELEVEN_RECALLS = np.arange(11) / 10  # of VOC's rule of 2007

Floats = npt.NDArray[np.float64]


def best_precision(precision: Floats) -> Floats:
    """The highest precision at each detection's recall or a later one's, (..., D) as given."""
    best: Floats = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return best


def precision_at(points_P: Floats, recall_D: Floats, best_D: Floats) -> Floats:
    """The best precision at some recalls or higher ones, (P,); 0 beyond the last.

    Args:
        points_P: recalls, in [0, 1].
        recall_D: of the curve, not falling.
        best_D: its `best_precision`.
    """
    found: Floats = np.append(best_D, 0.0)[np.searchsorted(recall_D, points_P)]
    return found
