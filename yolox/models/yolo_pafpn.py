"""The YOLOX neck: a path-aggregation feature pyramid on CSPDarknet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from yolox.models.darknet import CSPDarknet
from yolox.models.network_blocks import BaseConv, CSPLayer, concat, spatial_conv


class YOLOPAFPN(nn.Module):
    """Top-down then bottom-up fusion of three stages (Liu et al. 2018, arXiv:1803.01534)."""

    def __init__(
        self,
        depth: float = 1.0,
        width: float = 1.0,
        in_features: Sequence[str] = ("dark3", "dark4", "dark5"),
        in_channels: Sequence[int] = (256, 512, 1024),
        depthwise: bool = False,
        act: str = "silu",
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.backbone = CSPDarknet(depth, width, self.in_features, depthwise=depthwise, act=act)
        c3, c4, c5 = (int(c * width) for c in in_channels)

        def fuse(cin: int, cout: int) -> CSPLayer:
            n = round(3 * depth)
            return CSPLayer(cin, cout, n, shortcut=False, depthwise=depthwise, act=act)

        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral_conv0 = BaseConv(c5, c4, 1, 1, act=act)
        self.C3_p4 = fuse(2 * c4, c4)
        self.reduce_conv1 = BaseConv(c4, c3, 1, 1, act=act)
        self.C3_p3 = fuse(2 * c3, c3)
        self.bu_conv2 = spatial_conv(c3, c3, 3, 2, depthwise=depthwise, act=act)
        self.C3_n3 = fuse(2 * c3, c4)
        self.bu_conv1 = spatial_conv(c4, c4, 3, 2, depthwise=depthwise, act=act)
        self.C3_n4 = fuse(2 * c4, c5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) → features of strides 8, 16 and 32."""
        stages = self.backbone(x)
        s3, s4, s5 = (stages[name] for name in self.in_features)
        top5 = self.lateral_conv0(s5)
        mid4 = self.C3_p4(concat((self.upsample(top5), s4)))
        top4 = self.reduce_conv1(mid4)
        p3 = self.C3_p3(concat((self.upsample(top4), s3)))
        p4 = self.C3_n3(concat((self.bu_conv2(p3), top4)))
        p5 = self.C3_n4(concat((self.bu_conv1(p4), top5)))
        return p3, p4, p5
