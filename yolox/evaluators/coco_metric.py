"""COCO average precision, computed by faster-coco-eval where it is installed, else by pycocotools.

Both give the same figures; the one is some times as fast.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. Difficult objects take part as
crowds: they are no misses, and detections on them are no mistakes. Small, medium and large go by
the box's area in pixels (below 32², up to 96², above), for a sample has no mask; COCO's own
annotations go by the mask's area there, which is smaller.

Shape suffixes: T IoU thresholds; R recalls; C classes; S size ranges.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import pair_up

try:
    import faster_coco_eval
except ImportError:
    faster_coco_eval = None

__all__ = [
    "COCO_TOOLS",
    "DETECTION_LIMIT",
    "PYCOCOTOOLS",
    "COCOClassResult",
    "COCOResult",
    "COCOTools",
    "evaluate_coco",
    "objects_beyond_limit",
]


class COCOTools(NamedTuple):
    """A library that computes COCO's figures: its name, index of annotations, and evaluation."""

    name: str
    index: type[Any]
    evaluation: type[Any]


PYCOCOTOOLS = COCOTools("pycocotools", COCO, COCOeval)
COCO_TOOLS = (
    COCOTools("faster-coco-eval", faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster)
    if faster_coco_eval
    else PYCOCOTOOLS
)
DETECTION_LIMIT = 100  # of a class in an image, by score
_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}


@dataclass(frozen=True, kw_only=True)
class COCOClassResult:
    """One class: AP and AR in [0, 1], None for a class without an object that counts.

    Attributes:
        ap50_95: mean over IoU 0.50, 0.55, ..., 0.95.
        ap50: at IoU 0.5.
        ar50_95: recall with at most 100 detections an image, mean over the same IoUs.
    """

    ap50_95: float | None
    ap50: float | None
    ar50_95: float | None


@dataclass(frozen=True, kw_only=True)
class COCOResult:
    """Mean over the classes that have objects, in [0, 1]; None where no class has any.

    Attributes:
        metrics: ``ap50_95``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large`` and
            ``ar50_95`` (at most 100 detections of a class an image).
        objects: those that count, ``small``, ``medium`` and ``large``. COCO takes one right on a
            limit for both sides.
        tools: name of the library that computed it.
        per_class: by class index.
    """

    metrics: dict[str, float | None]
    objects: dict[str, int]
    tools: str
    per_class: tuple[COCOClassResult, ...]


def evaluate_coco(
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    num_classes: int,
    tools: COCOTools = COCO_TOOLS,
) -> COCOResult:
    """COCO AP and AR of ``detections`` on ``samples``. Prints nothing.

    An image without detections counts with all its objects missed.

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    pair_up(samples, detections)
    annotations = _truth_annotations(samples)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        categories = [{"id": c, "name": str(c)} for c in range(num_classes)]
        images = [{"id": s.image_id, "height": s.height, "width": s.width} for s in samples]
        truth = _index(tools, images, categories, annotations)
        found = _index(tools, images, categories, _found_annotations(detections))
        run = tools.evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
    precision_TRCS = run.eval["precision"][..., -1]  # last: at most 100 detections an image
    recall_TC = run.eval["recall"][:, :, 0, -1]
    at50, at75 = (int(np.argmin(abs(run.params.iouThrs - iou))) for iou in (0.5, 0.75))
    metrics = {
        "ap50_95": _mean(precision_TRCS[..., 0]),
        "ap50": _mean(precision_TRCS[at50, ..., 0]),
        "ap75": _mean(precision_TRCS[at75, ..., 0]),
        "ap_small": _mean(precision_TRCS[..., 1]),
        "ap_medium": _mean(precision_TRCS[..., 2]),
        "ap_large": _mean(precision_TRCS[..., 3]),
        "ar50_95": _mean(recall_TC),
    }
    per_class = tuple(
        COCOClassResult(
            ap50_95=_mean(precision_TRCS[:, :, c, 0]),
            ap50=_mean(precision_TRCS[at50, :, c, 0]),
            ar50_95=_mean(recall_TC[:, c]),
        )
        for c in range(num_classes)
    )
    areas = np.array([row["area"] for row in annotations if not row["iscrowd"]])
    return COCOResult(
        metrics=metrics,
        objects={
            name: int(((areas >= least) & (areas <= most)).sum())
            for name, (least, most) in _SIZES.items()
        },
        tools=tools.name,
        per_class=per_class,
    )


def objects_beyond_limit(samples: Sequence[EvalSample]) -> int:
    """Objects that COCO's rule counts as missed whatever is found: those above 100 of a class.

    It looks at an image's 100 best detections of each class.
    """
    beyond = 0
    for sample in samples:
        counted = np.asarray(sample.classes)[~np.asarray(sample.difficult, bool)]
        _, counts = np.unique(counted, return_counts=True)
        beyond += int((counts - DETECTION_LIMIT).clip(min=0).sum())
    return beyond


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of what is defined: pycocotools writes -1 where a class has no objects."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _index(
    tools: COCOTools,
    images: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> Any:
    # Filled by hand for both sides: loadRes, made for this, refuses an empty list.
    index = tools.index()
    index.dataset = {"images": images, "categories": categories, "annotations": annotations}
    index.createIndex()
    return index


def _truth_annotations(samples: Sequence[EvalSample]) -> list[dict[str, Any]]:
    rows = [
        (s.image_id, box, class_id, bool(difficult))
        for s in samples
        for box, class_id, difficult in zip(s.boxes, s.classes, s.difficult, strict=True)
    ]
    return [
        _annotation(number, image_id, box, class_id) | {"iscrowd": int(difficult)}
        for number, (image_id, box, class_id, difficult) in enumerate(rows, start=1)
    ]


def _found_annotations(detections: Sequence[ImageDetections]) -> list[dict[str, Any]]:
    rows = [
        (d.image_id, box, class_id, float(score))
        for d in detections
        for box, class_id, score in zip(d.boxes, d.classes, d.scores, strict=True)
    ]
    return [
        _annotation(number, image_id, box, class_id) | {"score": score}
        for number, (image_id, box, class_id, score) in enumerate(rows, start=1)
    ]


def _annotation(
    number: int, image_id: int, box: npt.NDArray[np.float32], class_id: int
) -> dict[str, Any]:
    """``number`` counts from 1: to pycocotools, a match with annotation 0 is no match."""
    x1, y1, x2, y2 = (float(v) for v in box)
    width, height = x2 - x1, y2 - y1
    return {
        "id": number,
        "image_id": image_id,
        "category_id": int(class_id),
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }
