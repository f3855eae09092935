"""Detections of a data set: gathered from all processes, and in the forms that others read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.utils.dist import get_world_size

__all__ = ["Outputs", "coco_rows", "gather_detections", "outputs_by_image"]

Outputs = dict[int, dict[str, list[Any]]]


def gather_detections(
    detections: list[ImageDetections], samples: Sequence[EvalSample], distributed: bool
) -> list[ImageDetections]:
    """Each image's detections once, in the samples' order.

    With ``distributed`` those of all processes, the same on all; every one has to call it. Samplers
    that fill up the last round repeat an image on another process, fewer of them than there are
    processes: the first process's detections of it count.

    Raises:
        ValueError: for an image that is not among ``samples``, one that a process saw twice, more
            repeated ones than fill up a round, or images that no process saw.
    """
    parts = _exchange(detections) if distributed else [detections]
    names = {sample.image_id: sample.name for sample in samples}
    by_image: dict[int, ImageDetections] = {}
    repeated = 0
    for part in parts:
        own: dict[int, ImageDetections] = {}
        for entry in part:
            if entry.image_id in own:
                raise ValueError(
                    f"the loader yields image {names.get(entry.image_id, entry.image_id)} twice; "
                    "evaluation needs each image once"
                )
            own[entry.image_id] = entry
        repeated += len(own.keys() & by_image.keys())
        by_image = own | by_image
    if repeated >= len(parts):
        raise ValueError(
            f"{repeated} of {len(samples)} images were seen by more than one of {len(parts)} "
            "processes: the loader has to give each process its own part of the data set"
        )
    if by_image.keys() - names.keys():
        raise ValueError(
            f"the loader yields images {sorted(by_image.keys() - names.keys())[:5]}, which are not "
            "among its data set's samples"
        )
    missing = [sample.name for sample in samples if sample.image_id not in by_image]
    if missing:
        raise ValueError(
            f"the loader left out {len(missing)} of {len(samples)} images "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); evaluation needs "
            "each of them once: no drop_last, and distributed=True if each process reads a part"
        )
    return [by_image[sample.image_id] for sample in samples]


def _exchange(detections: list[ImageDetections]) -> list[list[ImageDetections]]:
    """What each process found, by rank."""
    if get_world_size() == 1:
        return [detections]
    parts: list[Any] = [None] * get_world_size()
    dist.all_gather_object(parts, _packed(detections))
    return [_unpacked(*part) for part in parts]


def _packed(detections: list[ImageDetections]) -> tuple[Any, ...]:
    """Few large arrays: pickling an object an image would take many times the memory."""
    return (
        [entry.image_id for entry in detections],
        [len(entry.boxes) for entry in detections],
        np.concatenate([np.zeros((0, 4), np.float32), *(e.boxes for e in detections)]),
        np.concatenate([np.zeros(0, np.float32), *(e.scores for e in detections)]),
        np.concatenate([np.zeros(0, np.int64), *(e.classes for e in detections)]),
    )


def _unpacked(
    ids: list[int], counts: list[int], boxes: Any, scores: Any, classes: Any
) -> list[ImageDetections]:
    ends = np.cumsum(counts).tolist()
    return [
        ImageDetections(
            image_id=image_id,
            boxes=boxes[end - count : end],
            scores=scores[end - count : end],
            classes=classes[end - count : end],
        )
        for image_id, count, end in zip(ids, counts, ends, strict=True)
    ]


def outputs_by_image(detections: Sequence[ImageDetections]) -> Outputs:
    """By image id: ``bboxes`` (xyxy, original pixels), ``scores``, ``categories`` (indices)."""
    return {
        entry.image_id: {
            "bboxes": entry.boxes.tolist(),
            "scores": entry.scores.tolist(),
            "categories": entry.classes.tolist(),
        }
        for entry in detections
    }


def coco_rows(
    detections: Sequence[ImageDetections], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """COCO's result format: boxes as xywh in original pixels; category ids by class index."""
    return [
        {
            "image_id": entry.image_id,
            "category_id": int(category_ids[class_id]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for entry in detections
        for (x1, y1, x2, y2), class_id, score in zip(
            entry.boxes.tolist(), entry.classes.tolist(), entry.scores.tolist(), strict=True
        )
    ]
