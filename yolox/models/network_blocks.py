"""Building blocks of the YOLOX networks: convolution units, residual and CSP stages, SPP, Focus.

Attribute names are those of the official checkpoints, since they are the keys of every state dict.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from yolox.utils.errors import UserError

BN_EPS = 1e-3
BN_MOMENTUM = 0.03

# Every activation maps 0 to 0, so a channel with nothing but zeros stays silent through the net.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    # Their gradients need the input: in place, autograd would copy it first.
    "silu": lambda: nn.SiLU(),
    "mish": lambda: nn.Mish(),
    "relu": lambda: nn.ReLU(inplace=True),
    "lrelu": lambda: nn.LeakyReLU(0.1, inplace=True),
}


def get_activation(name: str = "silu") -> nn.Module:
    """A new activation module by name: silu, mish, relu or lrelu (slope 0.1).

    Raises:
        UserError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def concat(parts: Sequence[Tensor]) -> Tensor:
    """Parts (B, C_i, H, W) side by side, as (B, sum of C_i, H, W).

    Their gradients are made dense: autograd hands on channel slices of the whole's, on which
    channels-last kernels are several times slower than the copy.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        for part in parts:
            if part.requires_grad:
                part.register_hook(_dense)  # type: ignore[no-untyped-call]
    return torch.cat(list(parts), dim=1)


def _dense(gradient: Tensor) -> Tensor:
    channels_last = gradient.stride(1) == 1
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return gradient.contiguous(memory_format=layout)


class BaseConv(nn.Module):
    """Convolution without bias, batch norm, activation; "same" padding for odd kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ksize: int,
        stride: int,
        groups: int = 1,
        bias: bool = False,
        act: str = "silu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, ksize, stride, (ksize - 1) // 2, groups=groups, bias=bias
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = get_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉)."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class DWConv(nn.Module):
    """Depthwise then pointwise convolution, each with its batch norm and activation."""

    def __init__(
        self, in_channels: int, out_channels: int, ksize: int, stride: int = 1, act: str = "silu"
    ) -> None:
        super().__init__()
        self.dconv = BaseConv(in_channels, in_channels, ksize, stride, groups=in_channels, act=act)
        self.pconv = BaseConv(in_channels, out_channels, 1, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, ⌈H / stride⌉, ⌈W / stride⌉)."""
        out: Tensor = self.pconv(self.dconv(x))
        return out


def spatial_conv(
    in_channels: int, out_channels: int, ksize: int, stride: int, *, depthwise: bool, act: str
) -> BaseConv | DWConv:
    """A ksize × ksize unit, dense or depthwise-separable."""
    if depthwise:
        return DWConv(in_channels, out_channels, ksize, stride, act=act)
    return BaseConv(in_channels, out_channels, ksize, stride, act=act)


class Bottleneck(nn.Module):
    """1 × 1 squeeze, 3 × 3, and the input added where the widths allow it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shortcut: bool = True,
        expansion: float = 0.5,
        depthwise: bool = False,
        act: str = "silu",
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = BaseConv(in_channels, hidden, 1, 1, act=act)
        self.conv2 = spatial_conv(hidden, out_channels, 3, 1, depthwise=depthwise, act=act)
        self.use_add = shortcut and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W)."""
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.use_add else out


class ChannelShift(nn.Module):
    """One value a channel added: what is left of a residual block whose branch was pruned away."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return x + self.bias[:, None, None]


class ResLayer(nn.Module):
    """The residual unit of Darknet-53: 1 × 1 to half the width, 3 × 3 back, plus the input."""

    def __init__(self, in_channels: int, act: str = "lrelu") -> None:
        super().__init__()
        self.layer1 = BaseConv(in_channels, in_channels // 2, 1, 1, act=act)
        self.layer2 = BaseConv(in_channels // 2, in_channels, 3, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → the same shape."""
        out: Tensor = self.layer2(self.layer1(x))
        return x + out


class SPPBottleneck(nn.Module):
    """Spatial pyramid pooling (He et al. 2014, arXiv:1406.4729) between two 1 × 1 units.

    A stride-1 maximum over k × k followed by one over m × m is the maximum over a window of side
    k + m − 1, so each pool works on the previous one's output instead of on a larger window.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[int] = (5, 9, 13),
        activation: str = "silu",
    ) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.conv1 = BaseConv(in_channels, hidden, 1, 1, act=activation)
        windows = [k - previous + 1 for previous, k in itertools.pairwise((1, *kernel_sizes))]
        self.m = nn.ModuleList(nn.MaxPool2d(k, stride=1, padding=k // 2) for k in windows)
        self.conv2 = BaseConv(hidden * (len(windows) + 1), out_channels, 1, 1, act=activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W)."""
        pyramid = [self.conv1(x)]
        for pool in self.m:
            pyramid.append(pool(pyramid[-1]))
        out: Tensor = self.conv2(concat(pyramid))
        return out


class CSPLayer(nn.Module):
    """Cross-stage partial stage (Wang et al. 2020, arXiv:1911.11929) of ``n`` bottlenecks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n: int = 1,
        shortcut: bool = True,
        expansion: float = 0.5,
        depthwise: bool = False,
        act: str = "silu",
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = BaseConv(in_channels, hidden, 1, 1, act=act)
        self.conv2 = BaseConv(in_channels, hidden, 1, 1, act=act)
        self.conv3 = BaseConv(2 * hidden, out_channels, 1, 1, act=act)
        self.m = nn.Sequential(
            *(Bottleneck(hidden, hidden, shortcut, 1.0, depthwise, act=act) for _ in range(n))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H, W)."""
        out: Tensor = self.conv3(concat((self.m(self.conv1(x)), self.conv2(x))))
        return out


class Focus(nn.Module):
    """Space to depth by 2, then a convolution: (B, C, H, W) → (B, out_channels, H / 2, W / 2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ksize: int = 1,
        stride: int = 1,
        act: str = "silu",
    ) -> None:
        super().__init__()
        self.conv = BaseConv(in_channels * 4, out_channels, ksize, stride, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W), both even → (B, out_channels, H / 2, W / 2)."""
        # Column-major over the 2 × 2 cell: the order the official stem weights were trained with.
        cells = [x[..., dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)]
        out: Tensor = self.conv(torch.cat(cells, dim=1))
        return out
