"""What Ultralytics' detectors need of torchvision, for machines where its wheel does not import."""

import torch
from torch import Tensor

from . import ops as ops

__version__ = "0.28.0"

_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices that greedy suppression keeps, by falling score."""
    order = scores.argsort(descending=True, stable=True)
    x0, y0, x1, y1 = dets[order].double().unbind(1)
    area = (x1 - x0) * (y1 - y0)
    width = (torch.minimum(x1[:, None], x1) - torch.maximum(x0[:, None], x0)).clamp(min=0)
    height = (torch.minimum(y1[:, None], y1) - torch.maximum(y0[:, None], y0)).clamp(min=0)
    shared = width * height
    overlaps = shared / (area[:, None] + area - shared) > iou_threshold
    alive = torch.ones(len(order), dtype=torch.bool)
    for number in range(len(order)):
        if alive[number]:
            alive[number + 1 :] &= ~overlaps[number, number + 1 :]
    return order[alive]


_library.impl("nms", _nms, "CPU")
