"""The decoupled YOLOX head: features in, raw predictions out, and their decoding into boxes.

Shape suffixes: B images, A anchor points (all levels), C classes, K = 4 + 1 + C values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolox.models.network_blocks import BaseConv, spatial_conv


class HeadOutput(NamedTuple):
    """Raw predictions of every level side by side.

    Attributes:
        raw_BAK: (x offset, y offset, log w, log h) in strides, then objectness and class logits.
        grid_A2: column and row of each anchor point's cell on its level.
        stride_A: the level's stride in input pixels.
    """

    raw_BAK: Tensor
    grid_A2: Tensor
    stride_A: Tensor


def _full_precision(x: Tensor) -> Tensor:
    """Half precision widened to float32; float64, which verification runs in, kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def decode_boxes(out: HeadOutput) -> Tensor:
    """Boxes (B, A, 4) as cx, cy, w, h in input pixels, never in half precision."""
    raw = _full_precision(out.raw_BAK[..., :4])
    stride = out.stride_A[:, None]
    return torch.cat(((raw[..., :2] + out.grid_A2) * stride, raw[..., 2:].exp() * stride), dim=-1)


def decode(out: HeadOutput) -> Tensor:
    """Inference output (B, A, 5 + C): cx, cy, w, h in pixels, objectness, class probabilities."""
    return torch.cat((decode_boxes(out), _full_precision(out.raw_BAK[..., 4:]).sigmoid()), dim=-1)


class YOLOXHead(nn.Module):
    """Per level: a 1 × 1 stem, then two branches of two 3 × 3 units, classes apart from boxes.

    Attributes:
        use_l1: whether the training loss adds the L1 term (the trainer's last epochs).
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
        in_channels: Sequence[int] = (256, 512, 1024),
        act: str = "silu",
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.strides = tuple(strides)
        self.use_l1 = False
        hidden = int(256 * width)

        def branch() -> nn.Sequential:
            return nn.Sequential(
                *(spatial_conv(hidden, hidden, 3, 1, depthwise=depthwise, act=act) for _ in "12")
            )

        levels = range(len(self.strides))
        self.stems = nn.ModuleList(
            BaseConv(int(c * width), hidden, 1, 1, act=act) for c in in_channels
        )
        self.cls_convs = nn.ModuleList(branch() for _ in levels)
        self.reg_convs = nn.ModuleList(branch() for _ in levels)
        self.cls_preds = nn.ModuleList(nn.Conv2d(hidden, num_classes, 1) for _ in levels)
        self.reg_preds = nn.ModuleList(nn.Conv2d(hidden, 4, 1) for _ in levels)
        self.obj_preds = nn.ModuleList(nn.Conv2d(hidden, 1, 1) for _ in levels)

    def initialize_biases(self, prior_prob: float) -> None:
        """Start objectness and classes at ``prior_prob`` (Lin et al. 2017, arXiv:1708.02002)."""
        for conv in (*self.cls_preds, *self.obj_preds):
            nn.init.constant_(conv.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: Sequence[Tensor]) -> HeadOutput:
        """Features (B, C_l, H_l, W_l), finest level first → raw predictions of all levels."""
        raw, grid, stride = [], [], []
        for level, feature in enumerate(features):
            x = self.stems[level](feature)
            boxes = self.reg_convs[level](x)
            maps = (
                self.reg_preds[level](boxes),
                self.obj_preds[level](boxes),
                self.cls_preds[level](self.cls_convs[level](x)),
            )
            raw.append(torch.cat(maps, dim=1).flatten(2).transpose(1, 2))
            height, width = feature.shape[-2:]
            rows, columns = torch.meshgrid(
                torch.arange(height, device=feature.device, dtype=torch.float32),
                torch.arange(width, device=feature.device, dtype=torch.float32),
                indexing="ij",
            )
            grid.append(torch.stack((columns, rows), dim=-1).reshape(-1, 2))
            stride.append(grid[-1].new_full((height * width,), self.strides[level]))
        return HeadOutput(torch.cat(raw, dim=1), torch.cat(grid), torch.cat(stride))
