"""Box geometry, and decoding of raw predictions into detections.

Pure functions: no argument is ever changed. Box formats, all in pixels unless a function says
otherwise: ``xyxy`` is (left, top, right, bottom), ``xywh`` is (left, top, width, height) and
``cxcywh`` is (centre x, centre y, width, height). Areas are continuous: width = x2 - x1.

Shape suffixes: N, M boxes; B images; A anchors; C classes; P candidates; k detections.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from yolox.utils.nms import batched_nms, nms

__all__ = [
    "batched_nms",
    "bboxes_iou",
    "cxcywh2xyxy",
    "nms",
    "postprocess",
    "xyxy2cxcywh",
    "xyxy2xywh",
]

Array = TypeVar("Array", torch.Tensor, npt.NDArray[Any])


def xyxy2xywh(bboxes: Array) -> Array:
    """Convert boxes (..., 4) from xyxy to xywh; tensor or array, returns the same kind.

    Unlike the official function of this name it returns a new array and leaves its argument alone.
    Raises ValueError when the last dimension is not 4.
    """
    x1, y1, x2, y2 = _columns(bboxes)
    return _stack_like(bboxes, [x1, y1, x2 - x1, y2 - y1])


def xyxy2cxcywh(bboxes: Array) -> Array:
    """Convert boxes (..., 4) from xyxy to cxcywh; tensor or array, returns the same kind.

    Integer boxes give floats, for a centre may fall between pixels. Raises ValueError when the last
    dimension is not 4.
    """
    x1, y1, x2, y2 = _columns(bboxes)
    return _stack_like(bboxes, [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def cxcywh2xyxy(bboxes: Array) -> Array:
    """Convert boxes (..., 4) from cxcywh to xyxy; tensor or array, returns the same kind.

    Integer boxes give floats. Raises ValueError when the last dimension is not 4.
    """
    cx, cy, w, h = _columns(bboxes)
    return _stack_like(bboxes, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def bboxes_iou(bboxes_a: torch.Tensor, bboxes_b: torch.Tensor, xyxy: bool = True) -> torch.Tensor:
    """Intersection over union of every box of one set with every box of another.

    Args:
        bboxes_a: float (N, 4), xyxy (or cxcywh when ``xyxy`` is False), any one unit.
        bboxes_b: float (M, 4), likewise.
        xyxy: False when the boxes are cxcywh.

    Returns:
        Float (N, M) in [0, 1]; 0 where both boxes are empty.

    Raises:
        ValueError: when either argument is not (n, 4).
    """
    for name, boxes in (("bboxes_a", bboxes_a), ("bboxes_b", bboxes_b)):
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name}: expected shape (n, 4), got {tuple(boxes.shape)}")
    if not xyxy:
        bboxes_a, bboxes_b = cxcywh2xyxy(bboxes_a), cxcywh2xyxy(bboxes_b)
    top_left_NM2 = torch.maximum(bboxes_a[:, None, :2], bboxes_b[None, :, :2])
    bottom_right_NM2 = torch.minimum(bboxes_a[:, None, 2:], bboxes_b[None, :, 2:])
    inter_NM = (bottom_right_NM2 - top_left_NM2).clamp(min=0).prod(dim=-1)
    area_N = (bboxes_a[:, 2:] - bboxes_a[:, :2]).clamp(min=0).prod(dim=-1)
    area_M = (bboxes_b[:, 2:] - bboxes_b[:, :2]).clamp(min=0).prod(dim=-1)
    union_NM = area_N[:, None] + area_M[None, :] - inter_NM
    return torch.where(union_NM > 0, inter_NM / union_NM, torch.zeros_like(inter_NM))


def postprocess(
    prediction: torch.Tensor,
    num_classes: int,
    conf_thre: float = 0.7,
    nms_thre: float = 0.45,
    class_agnostic: bool = False,
    max_candidates: int | None = None,
) -> list[torch.Tensor | None]:
    """Turn a model's decoded output into detections.

    An anchor is a candidate when object probability × its best class probability is at least
    ``conf_thre``; candidates whose box is not finite are dropped. Candidates then go through NMS,
    those of all images at once, where the prediction is.

    Args:
        prediction: float (B, A, 5 + num_classes): cxcywh box in input pixels, object probability,
            class probabilities.
        num_classes: C ≥ 1.
        conf_thre: least score, in [0, 1].
        nms_thre: IoU above which the lower-scored box goes, in [0, 1].
        class_agnostic: let boxes of different classes suppress each other.
        max_candidates: of an image, those of the highest scores; None for all of them, as AP is
            measured. Bounds the time of NMS where a low ``conf_thre`` leaves very many.

    Returns:
        For each image None when nothing was found, else (k, 7) rows (x1, y1, x2, y2, object
        probability, class probability, class index) by falling score, box in input pixels, not
        clipped to the image. float32, or float64 when ``prediction`` is.

    Raises:
        ValueError: when ``prediction`` does not have 5 + num_classes columns, or for
            ``max_candidates`` below 1.
    """
    if prediction.ndim != 3 or prediction.shape[2] != 5 + num_classes:
        raise ValueError(
            f"prediction: expected (images, anchors, {5 + num_classes}) for {num_classes} classes, "
            f"got {tuple(prediction.shape)}; does num_classes fit the model?"
        )
    if prediction.dtype != torch.float64:
        prediction = prediction.float()  # half precision has too few digits for IoU
    class_prob_BA, class_BA = prediction[..., 5:].max(dim=2)
    score_BA = prediction[..., 4] * class_prob_BA
    candidate_BA = (score_BA >= conf_thre) & prediction[..., :4].isfinite().all(dim=2)
    index_P2 = candidate_BA.nonzero()
    if max_candidates is not None:
        index_P2 = index_P2[_highest(score_BA[candidate_BA], index_P2[:, 0], max_candidates)]
    image_P, anchor_P = index_P2.unbind(1)
    rows = prediction[image_P, anchor_P]
    classes = class_BA[image_P, anchor_P]
    prob = class_prob_BA[image_P, anchor_P]
    boxes = cxcywh2xyxy(rows[:, :4])
    rivals = image_P if class_agnostic else image_P * num_classes + classes
    keep = batched_nms(boxes, score_BA[image_P, anchor_P], rivals, nms_thre)
    keep = keep[torch.argsort(image_P[keep], stable=True)]
    columns = [boxes, rows[:, 4:5], prob[:, None], classes[:, None].to(boxes.dtype)]
    found = torch.cat(columns, dim=1)[keep]
    ends = torch.bincount(image_P[keep], minlength=len(prediction)).cumsum(0).tolist()
    return [
        found[start:end] if end > start else None
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _highest(score_P: torch.Tensor, image_P: torch.Tensor, most: int) -> torch.Tensor:
    """Which candidates are among so many of the highest scores of their image, bool (P,)."""
    if most < 1:
        raise ValueError(f"max_candidates: expected at least 1, got {most}")
    order = torch.argsort(-score_P, stable=True)
    order = order[torch.argsort(image_P[order], stable=True)]
    number = torch.arange(len(order), device=order.device)
    first = torch.searchsorted(image_P[order], image_P[order])
    return torch.empty_like(order, dtype=torch.bool).index_put_((order,), number - first < most)


def _columns(bboxes: Array) -> tuple[Array, Array, Array, Array]:
    if bboxes.ndim == 0 or bboxes.shape[-1] != 4:
        raise ValueError(f"boxes: expected shape (..., 4), got {tuple(bboxes.shape)}")
    return bboxes[..., 0], bboxes[..., 1], bboxes[..., 2], bboxes[..., 3]


def _stack_like(bboxes: Array, columns: list[Array]) -> Array:
    if isinstance(bboxes, torch.Tensor):
        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)
