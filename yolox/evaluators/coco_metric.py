"""COCO average precision, computed by faster-coco-eval where it is installed, else by pycocotools.

Both give the same figures; the one is some times as fast.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. Difficult objects take part as
crowds: they are no misses, and detections on them are no mistakes. Small, medium and large go by
the box's area in pixels (below 32², up to 96², above), for a sample has no mask; COCO's own
annotations go by the mask's area there, which is smaller.

Shape suffixes: T IoU thresholds; R recalls; C classes; S size ranges.
"""

import contextlib
import gc
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.matching import pair_up
from yolox.utils.choices import DETECTION_LIMIT

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
    truth, found = _truth(samples), _found(detections)
    # Once: a table makes a sample of columns each time that it is asked for one.
    images = [{"id": s.image_id, "height": s.height, "width": s.width} for s in samples]
    params = tools.evaluation(iouType="bbox").params
    shape = (len(params.iouThrs), len(params.recThrs), num_classes, len(params.areaRng))
    precision_TRCS, recall_TC = np.full(shape, -1.0), np.full((shape[0], num_classes), -1.0)
    with _without_collection():
        for c in range(num_classes):
            objects, hits = truth.of_class(c), found.of_class(c)
            if not len(objects) and not len(hits):
                continue
            run = evaluate_class(
                tools, images, truth.annotations(objects, c), found.annotations(hits, c)
            )
            precision_TRCS[:, :, c] = run.eval["precision"][:, :, 0, :, -1]  # last: at most 100
            recall_TC[:, c] = run.eval["recall"][:, 0, 0, -1]
    at50, at75 = (int(np.argmin(abs(params.iouThrs - iou))) for iou in (0.5, 0.75))
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
    areas = truth.sizes.prod(axis=1)[~truth.extra.astype(bool)]
    return COCOResult(
        metrics=metrics,
        objects={
            name: int(((areas >= least) & (areas <= most)).sum())
            for name, (least, most) in _SIZES.items()
        },
        tools=tools.name,
        per_class=per_class,
    )


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Leave reference cycles alone for a while.

    The libraries take dicts, hundreds of thousands of them, which have no cycles; looking for some
    again and again takes as long as all the rest.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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


class _Boxes(NamedTuple):
    """Objects or detections of all images; N of them.

    Attributes:
        images: image id, int64 (N,).
        corners: left and top, float64 (N, 2).
        sizes: width and height, float64 (N, 2).
        classes: int64 (N,).
        extra: float64 (N,), what `key` names.
        key: "iscrowd" or "score".
    """

    images: npt.NDArray[np.int64]
    corners: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    extra: npt.NDArray[np.float64]
    key: str

    def of_class(self, class_id: int) -> npt.NDArray[np.intp]:
        """Which of them are of a class."""
        return np.flatnonzero(self.classes == class_id)

    def annotations(self, rows: npt.NDArray[np.intp], class_id: int) -> list[dict[str, Any]]:
        """Some of them, all of a class, as pycocotools takes them.

        They are numbered from 1: to it, a match with annotation 0 is no match.
        """
        corners, sizes = self.corners[rows], self.sizes[rows]
        kind = int if self.key == "iscrowd" else float
        columns = (
            self.images[rows].tolist(),
            np.concatenate([corners, sizes], axis=1).tolist(),
            sizes.prod(axis=1).tolist(),
            map(kind, self.extra[rows].tolist()),
        )
        return [
            {
                "id": number,
                "image_id": image_id,
                "category_id": class_id,
                "bbox": box,
                "area": area,
                self.key: extra,
            }
            for number, (image_id, box, area, extra) in enumerate(zip(*columns, strict=True), 1)
        ]


def _truth(samples: Sequence[EvalSample]) -> _Boxes:
    return _boxes(
        [(s.image_id, s.boxes, s.classes, np.asarray(s.difficult, bool)) for s in samples],
        "iscrowd",
    )


def _found(detections: Sequence[ImageDetections]) -> _Boxes:
    return _boxes([(d.image_id, d.boxes, d.classes, d.scores) for d in detections], "score")


def _boxes(entries: list[tuple[int, Any, Any, Any]], key: str) -> _Boxes:
    """The columns of images' entries: id, boxes x1 y1 x2 y2, classes, and what the key names."""
    counts = [len(boxes) for _, boxes, _, _ in entries]
    none = np.zeros((0, 4))
    boxes = np.concatenate([none, *(np.reshape(boxes, (-1, 4)) for _, boxes, _, _ in entries)])
    return _Boxes(
        images=np.repeat(np.array([entry[0] for entry in entries], np.int64), counts),
        corners=boxes[:, :2],
        sizes=boxes[:, 2:] - boxes[:, :2],
        classes=np.concatenate([none[:, 0], *(e[2] for e in entries)]).astype(np.int64),
        extra=np.concatenate([none[:, 0], *(e[3] for e in entries)]),
        key=key,
    )


def evaluate_class(
    tools: COCOTools,
    images: Sequence[dict[str, Any]],
    objects: list[dict[str, Any]],
    hits: list[dict[str, Any]],
) -> Any:
    """The evaluation of one class on the images that have anything of it.

    Classes do not meet in COCO's rule. One at a time, they never all lie in memory as dicts, and
    images without an object or a detection of a class are not gone through.
    """
    taking_part = {row["image_id"] for row in (*objects, *hits)}
    images = [image for image in images if image["id"] in taking_part]
    class_id = (objects or hits)[0]["category_id"]
    categories = [{"id": class_id, "name": str(class_id)}]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        truth = _index(tools, images, categories, objects)
        found = _index(tools, images, categories, hits)
        run = tools.evaluation(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
    return run


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
