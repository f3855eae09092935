"""The yolov3 neck: a top-down feature pyramid on Darknet-53."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolox.models.darknet import Darknet
from yolox.models.network_blocks import BaseConv, concat


class YOLOFPN(nn.Module):
    """Top-down fusion of dark3, dark4 and dark5 (Redmon & Farhadi 2018, arXiv:1804.02767)."""

    def __init__(
        self,
        depth: int = 53,
        in_features: Sequence[str] = ("dark3", "dark4", "dark5"),
        act: str = "lrelu",
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.backbone = Darknet(depth, out_features=self.in_features, act=act)
        self.out1_cbl = BaseConv(512, 256, 1, 1, act=act)
        self.out1 = _alternating(256, 512, 512 + 256, act)
        self.out2_cbl = BaseConv(256, 128, 1, 1, act=act)
        self.out2 = _alternating(128, 256, 256 + 128, act)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) → features of strides 8, 16 and 32."""
        stages = self.backbone(x)
        s3, s4, s5 = (stages[name] for name in self.in_features)
        p4 = self.out1(concat((self.upsample(self.out1_cbl(s5)), s4)))
        p3 = self.out2(concat((self.upsample(self.out2_cbl(p4)), s3)))
        return p3, p4, s5


def _alternating(narrow: int, wide: int, in_channels: int, act: str) -> nn.Sequential:
    """Five units of width narrow, wide, narrow, wide, narrow; 1 × 1 and 3 × 3 in turn."""
    return nn.Sequential(
        BaseConv(in_channels, narrow, 1, 1, act=act),
        BaseConv(narrow, wide, 3, 1, act=act),
        BaseConv(wide, narrow, 1, 1, act=act),
        BaseConv(narrow, wide, 3, 1, act=act),
        BaseConv(wide, narrow, 1, 1, act=act),
    )
