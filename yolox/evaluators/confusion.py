"""Which class was taken for which: a table of counts.

Every detection of at least some score chooses a ground truth by the rule of
:mod:`yolox.evaluators.matching`, whatever the classes: a dog found where a cat is annotated is a
cat taken for a dog. Difficult objects, and detections on them, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import IGNORED, match_image, pair_up

__all__ = ["Confusion", "confusion_table"]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts by annotated and by predicted class.

    Attributes:
        score: least score of a detection that counts.
        iou: least overlap with the ground truth that a detection stands for.
        counts: int64 (classes + 1, classes + 1). Row: annotated class, last those detections that
            stand for nothing. Column: predicted class, last those objects that were missed. The
            last cell is 0.
    """

    score: float
    iou: float
    counts: npt.NDArray[np.int64]


def confusion_table(
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    num_classes: int,
    *,
    score: float,
    iou: float = 0.5,
) -> Confusion:
    """Count hits, confusions, misses and false alarms.

    Of several detections of one object, whatever their classes, all but the best-scored one are
    false alarms.

    Args:
        samples: the annotated images.
        detections: at most one entry an image; an image without one has no detections.
        num_classes: of the data set.
        score: in [0, 1].
        iou: in (0, 1].

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for sample, found in pair_up(samples, detections):
        classes = np.asarray(sample.classes)
        missed = ~np.asarray(sample.difficult, bool)
        if found is not None:
            kept = found.scores >= np.float32(score)
            found = ImageDetections(
                image_id=found.image_id,
                boxes=found.boxes[kept],
                scores=found.scores[kept],
                classes=found.classes[kept],
            )
            (taken,) = match_image(sample, found, (iou,), same_class=False)
            hit = taken >= 0
            # Appended for detections of nothing, whose index is -1.
            annotated = np.append(classes, num_classes)[np.where(hit, taken, -1)]
            counted = taken != IGNORED
            np.add.at(counts, (annotated[counted], found.classes[counted]), 1)
            missed[taken[hit]] = False
        np.add.at(counts, (classes[missed], num_classes), 1)
    return Confusion(score=score, iou=iou, counts=counts)
