"""Box geometry, non-maximum suppression and decoding of raw predictions into detections.

Pure functions: no argument is ever changed. Box formats, all in pixels unless a function says
otherwise: ``xyxy`` is (left, top, right, bottom), ``xywh`` is (left, top, width, height) and
``cxcywh`` is (centre x, centre y, width, height). Areas are continuous: width = x2 - x1.

Shape suffixes: N, M boxes; K boxes kept so far; B images; A anchors; C classes; k detections.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

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

# Boxes taken at once in suppression: the work arrays stay in cache, memory stays bounded.
_NMS_BLOCK = 256


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


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression, regardless of class.

    From the highest score down, a box is kept unless its IoU with a kept one is above
    ``iou_threshold``. Among equal scores the lower index goes first. Runs on the CPU; tensors on
    another device are copied.

    Args:
        boxes: float (N, 4), xyxy.
        scores: float (N,).
        iou_threshold: in [0, 1].

    Returns:
        int64 (K,), indices of the kept boxes by falling score, on the device of ``boxes``.

    Raises:
        ValueError: for shapes that do not fit, or a threshold out of range.
    """
    _check_nms_arguments(boxes, scores, iou_threshold)
    boxes_N4 = _to_numpy(boxes)
    order_N = np.argsort(-_to_numpy(scores), kind="stable")
    keep_K = order_N[_suppress(boxes_N4[order_N], iou_threshold)]
    return torch.from_numpy(keep_K).to(boxes.device)


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Greedy non-maximum suppression within each class: boxes of two classes never compete.

    Classes are compared themselves rather than by shifting boxes apart, so large coordinates lose
    no precision. Otherwise as :func:`nms`.

    Args:
        boxes: float (N, 4), xyxy.
        scores: float (N,).
        classes: any real dtype (N,), class of each box.
        iou_threshold: in [0, 1].

    Returns:
        int64 (K,), indices of the kept boxes of all classes by falling score, on the device of
        ``boxes``.

    Raises:
        ValueError: for shapes that do not fit, or a threshold out of range.
    """
    _check_nms_arguments(boxes, scores, iou_threshold)
    if classes.shape != scores.shape:
        raise ValueError(
            f"classes: expected one a box, {tuple(scores.shape)}, got {tuple(classes.shape)}"
        )
    boxes_N4 = _to_numpy(boxes)
    classes_N = _to_numpy(classes)
    rank_N = np.argsort(-_to_numpy(scores), kind="stable")
    kept_N = np.zeros(len(rank_N), dtype=bool)  # by rank, so the result comes out sorted
    # Stable again: within each class the order by score survives.
    by_class_N = np.argsort(classes_N[rank_N], kind="stable")
    cuts = np.flatnonzero(np.diff(classes_N[rank_N][by_class_N])) + 1
    for ranks in np.split(by_class_N, cuts):
        kept_N[ranks[_suppress(boxes_N4[rank_N[ranks]], iou_threshold)]] = True
    return torch.from_numpy(rank_N[kept_N]).to(boxes.device)


def postprocess(
    prediction: torch.Tensor,
    num_classes: int,
    conf_thre: float = 0.7,
    nms_thre: float = 0.45,
    class_agnostic: bool = False,
) -> list[torch.Tensor | None]:
    """Turn a model's decoded output into detections.

    An anchor is a candidate when object probability × its best class probability is at least
    ``conf_thre``; candidates whose box is not finite are dropped. Candidates then go through NMS.

    Args:
        prediction: float (B, A, 5 + num_classes): cxcywh box in input pixels, object probability,
            class probabilities.
        num_classes: C ≥ 1.
        conf_thre: least score, in [0, 1].
        nms_thre: IoU above which the lower-scored box goes, in [0, 1].
        class_agnostic: let boxes of different classes suppress each other.

    Returns:
        For each image None when nothing was found, else (k, 7) rows (x1, y1, x2, y2, object
        probability, class probability, class index) by falling score, box in input pixels, not
        clipped to the image. float32, or float64 when ``prediction`` is.

    Raises:
        ValueError: when ``prediction`` does not have 5 + num_classes columns.
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

    results: list[torch.Tensor | None] = []
    for image, candidate_A in enumerate(candidate_BA):
        index = candidate_A.nonzero().squeeze(1)
        if len(index) == 0:
            results.append(None)
            continue
        rows = prediction[image, index]
        boxes = cxcywh2xyxy(rows[:, :4])
        classes = class_BA[image, index]
        scores = score_BA[image, index]
        if class_agnostic:
            keep = nms(boxes, scores, nms_thre)
        else:
            keep = batched_nms(boxes, scores, classes, nms_thre)
        prob = class_prob_BA[image, index]
        columns = [boxes, rows[:, 4:5], prob[:, None], classes[:, None].to(boxes.dtype)]
        results.append(torch.cat(columns, dim=1)[keep])
    return results


def _columns(bboxes: Array) -> tuple[Array, Array, Array, Array]:
    if bboxes.ndim == 0 or bboxes.shape[-1] != 4:
        raise ValueError(f"boxes: expected shape (..., 4), got {tuple(bboxes.shape)}")
    return bboxes[..., 0], bboxes[..., 1], bboxes[..., 2], bboxes[..., 3]


def _stack_like(bboxes: Array, columns: list[Array]) -> Array:
    if isinstance(bboxes, torch.Tensor):
        return torch.stack(columns, dim=-1)
    return np.stack(columns, axis=-1)


def _check_nms_arguments(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (n, 4), got {tuple(boxes.shape)}")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores: expected shape ({len(boxes)},), got {tuple(scores.shape)}")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number in [0, 1], got {iou_threshold}")


def _to_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()  # NumPy has no bfloat16
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _suppress(boxes_N4: npt.NDArray[Any], iou_threshold: float) -> npt.NDArray[np.intp]:
    """Positions of the boxes that greedy NMS keeps, for boxes already by falling score.

    Block by block: what the boxes kept so far suppress goes at once, what is left in the block is
    settled one by one. All pairs are never held together.
    """
    kept_K = np.zeros(0, dtype=np.intp)
    for start in range(0, len(boxes_N4), _NMS_BLOCK):
        index = np.arange(start, min(start + _NMS_BLOCK, len(boxes_N4)))
        if len(kept_K):
            beaten = _overlaps(boxes_N4[kept_K], boxes_N4[index], iou_threshold).any(axis=0)
            index = index[~beaten]
        clear = ~_overlaps(boxes_N4[index], boxes_N4[index], iou_threshold)
        alive = np.ones(len(index), dtype=bool)
        for row in range(len(index) - 1):
            if alive[row]:
                alive[row + 1 :] &= clear[row, row + 1 :]
        kept_K = np.concatenate([kept_K, index[alive]])
    return kept_K


def _overlaps(
    boxes_K4: npt.NDArray[Any], boxes_M4: npt.NDArray[Any], iou_threshold: float
) -> npt.NDArray[np.bool_]:
    """Whether IoU > threshold, (K, M); without a division, so that empty boxes are safe."""
    x1_K1, y1_K1, x2_K1, y2_K1 = (boxes_K4[:, i, None] for i in range(4))
    x1_M, y1_M, x2_M, y2_M = (boxes_M4[:, i] for i in range(4))
    # Sides are exponentials. Where an area overflows, a box counts as overlapping nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        inter_KM = np.minimum(x2_K1, x2_M)
        inter_KM -= np.maximum(x1_K1, x1_M)
        height_KM = np.minimum(y2_K1, y2_M)
        height_KM -= np.maximum(y1_K1, y1_M)
        np.maximum(inter_KM, 0, out=inter_KM)
        np.maximum(height_KM, 0, out=height_KM)
        inter_KM *= height_KM
        area_K1 = np.maximum(x2_K1 - x1_K1, 0) * np.maximum(y2_K1 - y1_K1, 0)
        area_M = np.maximum(x2_M - x1_M, 0) * np.maximum(y2_M - y1_M, 0)
        over: npt.NDArray[np.bool_] = inter_KM > iou_threshold * (area_K1 + area_M - inter_KM)
    return over
