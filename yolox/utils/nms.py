"""Greedy non-maximum suppression: on a CPU, and on accelerators without a loop over boxes.

Which boxes are kept is the same to the bit everywhere: each way computes the same float operations,
one after the other, and compares ``inter > threshold × union`` without a division.

What greedy suppression keeps is the fixed point of "kept unless a kept one before it overlaps"
(Cluster-NMS, Zheng et al. 2020, https://arxiv.org/abs/2005.03572). On an accelerator all pairs of a
block are looked at; on CUDA torchvision's kernel is asked first where it is there. For CPUs see
`nms_cpu`.

Shape suffixes: N boxes; K kept boxes; M boxes compared with them; P pairs.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from yolox.utils.nms_cpu import Numbers, kept_on_cpu, ranked

__all__ = ["batched_nms", "nms"]

BLOCK = 2048  # boxes settled at once on an accelerator
ACCELERATOR_PAIRS = 1 << 24
_ROUNDING = 2e-6  # of an IoU in float32, relative, twice what its operations can add up to
_LEAST_AREA, _MOST_AREA = 1e-30, 1e30  # between them float32 neither underflows nor overflows


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, regardless of class.

    From the highest score down, a box is kept unless its IoU with a kept one is above
    ``iou_threshold``. Among equal scores the lower index goes first. Runs where the boxes are.

    Args:
        boxes: float (N, 4), xyxy.
        scores: float (N,).
        iou_threshold: in [0, 1].

    Returns:
        int64 (K,), indices of the kept boxes by falling score, on the device of ``boxes``.

    Raises:
        ValueError: for shapes that do not fit, or a threshold out of range.
    """
    return batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
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
    _check_arguments(boxes, scores, classes, iou_threshold)
    boxes, scores = (t.detach().float() if _is_half(t) else t.detach() for t in (boxes, scores))
    if boxes.device.type == "cpu":
        rank_N = ranked(scores.cpu().numpy())
        boxes_N4 = boxes.numpy()[rank_N]
        classes_N = _numbered(classes.detach().cpu())[rank_N]
        return torch.from_numpy(rank_N[kept_on_cpu(boxes_N4, classes_N, iou_threshold)])
    rank = torch.argsort(-scores.to(boxes.device), stable=True)
    classes = classes.detach().to(boxes.device)[rank]
    # Stable again: within each class the order by score survives.
    by_class = torch.argsort(classes, stable=True)
    sorted_boxes, sorted_classes = boxes[rank[by_class]], classes[by_class]
    kept = None
    if boxes.device.type == "cuda" and (kernel := torchvision_nms()) is not None:
        kept = kept_by_kernel(kernel, sorted_boxes, sorted_classes, iou_threshold)
    if kept is None:
        kept = kept_on_device(sorted_boxes, sorted_classes, iou_threshold)
    return rank[torch.empty_like(kept).index_put_((by_class,), kept)]


def _check_arguments(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (n, 4), got {tuple(boxes.shape)}")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores: expected shape ({len(boxes)},), got {tuple(scores.shape)}")
    if classes.shape != scores.shape:
        raise ValueError(
            f"classes: expected one a box, {tuple(scores.shape)}, got {tuple(classes.shape)}"
        )
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number in [0, 1], got {iou_threshold}")


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _numbered(classes: Tensor) -> Numbers:
    """The classes as numbers from 0 on, below 2**31."""
    if not classes.dtype.is_floating_point and (
        not len(classes) or (int(classes.min()) >= 0 and int(classes.max()) < 1 << 31)
    ):
        return classes.to(torch.int64).numpy()
    values = (classes.float() if _is_half(classes) else classes).numpy()
    return np.unique(values, return_inverse=True)[1].reshape(-1)


# ---------------------------------------------------------------------------------- on accelerators


def kept_on_device(boxes_N4: Tensor, classes_N: Tensor, iou_threshold: float) -> Tensor:
    """Whether each box is kept, bool (N,), for boxes sorted by class, then by falling score.

    A block of boxes is settled; what it keeps then suppresses all that is left of its last class,
    the only one that goes on behind it. All pairs are never held together.
    """
    kept_N = torch.zeros(len(boxes_N4), dtype=torch.bool, device=boxes_N4.device)
    left = torch.arange(len(boxes_N4), device=boxes_N4.device)
    while len(left):
        index, left = left[:BLOCK], left[BLOCK:]
        boxes, classes = boxes_N4[index], classes_N[index]
        over = _overlaps(boxes, boxes, iou_threshold)
        over = (over & (classes[:, None] == classes)).triu(1)
        alive = torch.ones_like(kept_N[index])
        while not torch.equal(again := ~(over & alive[:, None]).any(dim=0), alive):
            alive = again
        kept_N[index] = alive
        if len(left):
            here = boxes[alive & (classes == classes[-1])]
            same = left[classes_N[left] == classes[-1]]
            step = max(1, ACCELERATOR_PAIRS // max(1, len(here)))
            beaten = [
                _overlaps(here, boxes_N4[same[start : start + step]], iou_threshold).any(dim=0)
                for start in range(0, len(same), step)
            ]
            if beaten:
                left = torch.cat([same[~torch.cat(beaten)], left[len(same) :]])
    return kept_N


def _overlaps(boxes_K4: Tensor, boxes_M4: Tensor, iou_threshold: float) -> Tensor:
    """Whether IoU > threshold, (K, M); without a division, so that empty boxes are safe."""
    x1_K1, y1_K1, x2_K1, y2_K1 = boxes_K4.T[:, :, None]
    x1_M, y1_M, x2_M, y2_M = boxes_M4.T
    width_KM = (torch.minimum(x2_K1, x2_M) - torch.maximum(x1_K1, x1_M)).clamp_(min=0)
    height_KM = (torch.minimum(y2_K1, y2_M) - torch.maximum(y1_K1, y1_M)).clamp_(min=0)
    inter_KM = width_KM * height_KM
    area_K1 = (x2_K1 - x1_K1).clamp(min=0) * (y2_K1 - y1_K1).clamp(min=0)
    area_M = (x2_M - x1_M).clamp(min=0) * (y2_M - y1_M).clamp(min=0)
    over_KM: Tensor = inter_KM > (area_K1 + area_M - inter_KM) * iou_threshold
    return over_KM


@functools.cache
def torchvision_nms() -> Callable[[Tensor, Tensor, float], Tensor] | None:
    """Its kernel, None where torchvision is not there or does not fit this PyTorch."""
    try:
        kernel: Callable[[Tensor, Tensor, float], Tensor] = importlib.import_module(
            "torchvision.ops"
        ).nms
    except (ImportError, OSError, RuntimeError):
        return None
    return kernel


def kept_by_kernel(
    kernel: Callable[[Tensor, Tensor, float], Tensor],
    boxes_N4: Tensor,
    classes_N: Tensor,
    iou_threshold: float,
) -> Tensor | None:
    """As `kept_on_device`, by torchvision's kernel; None where its rounding could decide.

    The kernel rounds otherwise, here in float64. So it is asked twice, with thresholds apart by
    more than the rounding of float32. If both answers are the same, so is that of any rounding
    between: by induction over the ranks, a box that both keep is overlapped by no kept one even at
    the lower threshold, and one that both drop is overlapped by a kept one even at the higher.
    """
    if not len(boxes_N4):
        return torch.zeros(0, dtype=torch.bool, device=boxes_N4.device)
    size = (boxes_N4[:, 2:] - boxes_N4[:, :2]).clamp(min=0)
    area = size[:, 0] * size[:, 1]
    exact = (((area > _LEAST_AREA) & (area < _MOST_AREA)) | (size == 0).any(dim=1)).all()
    far = boxes_N4.double()
    number = torch.cat([classes_N[:1] != classes_N[:1], classes_N[1:] != classes_N[:-1]]).cumsum(0)
    # A power of two has few digits, so most sums are exact; if one is not, that shows.
    step = torch.exp2((far.max() - far.min() + 1).log2().ceil())
    shift = (number * step)[:, None]
    shifted = far + shift
    exact &= (shifted - shift == far).all()
    if not exact:
        return None
    scores = -torch.arange(len(boxes_N4), dtype=torch.float64, device=boxes_N4.device)
    answers = []
    for threshold in (iou_threshold * (1 - _ROUNDING), iou_threshold * (1 + _ROUNDING)):
        try:
            index = kernel(shifted, scores, threshold)
        except NotImplementedError:  # torchvision was built without this device
            return None
        answers.append(torch.zeros_like(exact).expand(len(boxes_N4)).index_fill(0, index, True))
    return answers[0] if torch.equal(*answers) else None
