"""The one operation."""

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """See torchvision.ops.nms."""
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, iou_threshold)
    return kept
