"""Backbones: CSPDarknet (YOLOX) and Darknet-53 (yolov3). Both return named stage outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from yolox.models.network_blocks import (
    BaseConv,
    CSPLayer,
    Focus,
    ResLayer,
    SPPBottleneck,
    spatial_conv,
)

STAGES = ("stem", "dark2", "dark3", "dark4", "dark5")


class _StagedBackbone(nn.Module):
    """Runs stem … dark5 in order and returns the stages that were asked for."""

    def __init__(self, out_features: Sequence[str]) -> None:
        super().__init__()
        unknown = [name for name in out_features if name not in STAGES]
        if unknown or not out_features:
            raise ValueError(f"out_features must be some of {STAGES}, got {tuple(out_features)}")
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) → {stage: (B, C, H / s, W / s)}, s = 2, 4, 8, 16, 32 from stem to dark5."""
        outputs = {}
        for name in STAGES:
            x = getattr(self, name)(x)
            if name in self.out_features:
                outputs[name] = x
        return outputs


class Darknet(_StagedBackbone):
    """Darknet of YOLOv3 (Redmon & Farhadi 2018, arXiv:1804.02767), with an SPP tail."""

    DEPTH_TO_BLOCKS: ClassVar = {21: (1, 2, 2, 1), 53: (2, 8, 8, 4)}

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_out_channels: int = 32,
        out_features: Sequence[str] = ("dark3", "dark4", "dark5"),
        act: str = "lrelu",
    ) -> None:
        super().__init__(out_features)
        if depth not in self.DEPTH_TO_BLOCKS:
            raise ValueError(f"depth must be one of {list(self.DEPTH_TO_BLOCKS)}, got {depth}")
        blocks = self.DEPTH_TO_BLOCKS[depth]
        c = stem_out_channels
        self.stem = nn.Sequential(
            BaseConv(in_channels, c, 3, 1, act=act), *_residual_stage(c, 2 * c, 1, act)
        )
        self.dark2 = nn.Sequential(*_residual_stage(2 * c, 4 * c, blocks[0], act))
        self.dark3 = nn.Sequential(*_residual_stage(4 * c, 8 * c, blocks[1], act))
        self.dark4 = nn.Sequential(*_residual_stage(8 * c, 16 * c, blocks[2], act))
        self.dark5 = nn.Sequential(
            *_residual_stage(16 * c, 32 * c, blocks[3], act),
            BaseConv(32 * c, 16 * c, 1, 1, act=act),
            BaseConv(16 * c, 32 * c, 3, 1, act=act),
            SPPBottleneck(32 * c, 16 * c, activation=act),
            BaseConv(16 * c, 32 * c, 3, 1, act=act),
            BaseConv(32 * c, 16 * c, 1, 1, act=act),
        )


def _residual_stage(in_channels: int, out_channels: int, blocks: int, act: str) -> list[nn.Module]:
    units = [ResLayer(out_channels, act=act) for _ in range(blocks)]
    return [BaseConv(in_channels, out_channels, 3, 2, act=act), *units]


class CSPDarknet(_StagedBackbone):
    """The YOLOX backbone (Ge et al. 2021, arXiv:2107.08430), scaled by two multipliers."""

    def __init__(
        self,
        dep_mul: float,
        wid_mul: float,
        out_features: Sequence[str] = ("dark3", "dark4", "dark5"),
        depthwise: bool = False,
        act: str = "silu",
    ) -> None:
        super().__init__(out_features)
        c = int(wid_mul * 64)
        n = max(round(dep_mul * 3), 1)

        def stage(cin: int, blocks: int) -> nn.Sequential:
            down = spatial_conv(cin, 2 * cin, 3, 2, depthwise=depthwise, act=act)
            return nn.Sequential(
                down, CSPLayer(2 * cin, 2 * cin, blocks, depthwise=depthwise, act=act)
            )

        self.stem = Focus(3, c, ksize=3, act=act)
        self.dark2 = stage(c, n)
        self.dark3 = stage(2 * c, 3 * n)
        self.dark4 = stage(4 * c, 3 * n)
        self.dark5 = nn.Sequential(
            spatial_conv(8 * c, 16 * c, 3, 2, depthwise=depthwise, act=act),
            SPPBottleneck(16 * c, 16 * c, activation=act),
            CSPLayer(16 * c, 16 * c, n, shortcut=False, depthwise=depthwise, act=act),
        )
