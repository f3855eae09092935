"""A convolution as a runtime sees it, but for its channels: what its speed depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ConvKind:
    """A 2-d convolution with the activation behind it.

    Attributes:
        kernel, stride, padding: vertical and horizontal.
        depthwise: one filter a channel; otherwise dense.
        size: height and width of its input.
        act: activation by name (silu, mish, relu, lrelu), or empty.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    depthwise: bool
    size: tuple[int, int]
    act: str

    @property
    def label(self) -> str:
        """A name that tells it from all others, such as ``3x3 stride 2x2 pad 1x1 on 8x8 silu``."""
        parts = [
            "depthwise" if self.depthwise else "",
            _cross(self.kernel),
            f"stride {_cross(self.stride)}",
            f"pad {_cross(self.padding)}",
            f"on {_cross(self.size)}",
            self.act,
        ]
        return " ".join(part for part in parts if part)


Pair = tuple[int, int]  # input and output channels
# Milliseconds of one run of a layer of a kind, for each pair.
LayerTimer = Callable[[ConvKind, Sequence[Pair]], list[float]]


def _cross(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
