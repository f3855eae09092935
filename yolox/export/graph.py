"""The detector in the form that a file holds.

Shape suffixes: B images, A anchor points, C classes; of weights, O and I channels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from yolox.models import YOLOX
from yolox.models.network_blocks import BaseConv, Focus
from yolox.models.yolo_head import decode_boxes
from yolox.utils.model_utils import copy_model, fuse_model, replace_module

_INPUT_SCALE = 2.0**-8  # brings pixels to about 1; a power of two, so that nothing is rounded


class Deployed(nn.Module):
    """Images (B, 3, H, W) → (B, A, 5 + C): four box values, objectness, class probabilities.

    Box values are cx, cy, w, h in pixels with ``decode``; without, the head's x and y offset, log w
    and log h, in strides. ``scale`` multiplies the images first. With ``half`` the network, up to
    its raw predictions, is in float16; input, decoding and output stay in float32, for float16 has
    no digits left for a pixel beyond 2048.
    """

    def __init__(
        self, model: YOLOX, *, decode: bool, scale: float = 1.0, half: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.decode = decode
        self.scale = scale
        self.half_precision = half

    def forward(self, x: Tensor) -> Tensor:
        """Predictions float32 (B, A, 5 + C) of images (B, 3, H, W): box, objectness, classes."""
        if self.scale != 1:
            x = x * self.scale
        out = self.model.raw(x.half() if self.half_precision else x)
        if self.half_precision:
            out = out._replace(raw_BAK=out.raw_BAK.float())
        boxes = decode_boxes(out) if self.decode else out.raw_BAK[..., :4]
        return torch.cat((boxes, out.raw_BAK[..., 4:].sigmoid()), dim=-1)


class SigmoidMish(nn.Module):
    """Mish (Misra 2020, arXiv:1908.08681), x · tanh(ln(1 + eˣ)), without logarithm and tanh.

    With s = sigmoid(-x) = 1 / (1 + eˣ), tanh(ln(1 / s)) = (1 - s²) / (1 + s²). onnxruntime computes
    these operations far faster than its Mish, and TensorRT's parser knows them all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Mish of each value, whatever the shape."""
        square = (-x).sigmoid().square()
        return x * ((1 - square) / (1 + square))


def deployed(
    model: YOLOX,
    *,
    decode: bool,
    rescale: bool = False,
    half: bool = False,
    plain_mish: bool = False,
) -> Deployed:
    """A copy to be converted: on the CPU, batch norms and Focus folded, in evaluation mode.

    Args:
        model: not touched.
        decode: see `Deployed`.
        rescale: keep the weights in the range of float16, for a converter that rounds them to it.
        half: in float16.
        plain_mish: `SigmoidMish` for Mish.
    """
    folded = cast(YOLOX, fold_focus(fuse_model(model))).requires_grad_(False).cpu()
    if plain_mish:
        replace_module(folded, nn.Mish, SigmoidMish)
    if rescale:
        _scale_stem(folded)
    return Deployed(
        folded.half() if half else folded,
        decode=decode,
        scale=_INPUT_SCALE if rescale else 1.0,
        half=half,
    ).eval()


def _scale_stem(model: YOLOX) -> None:
    """Undo `_INPUT_SCALE` in the first convolution, in place.

    Made for pixels up to 255, its weights are so small that many have few digits in float16, and
    that ncnn, which rounds such numbers to 0, computes something else altogether.
    """
    stem = model.backbone.backbone.stem
    first = next(module for module in stem.modules() if isinstance(module, nn.Conv2d))
    first.weight.div_(_INPUT_SCALE)


def fold_focus(model: nn.Module) -> nn.Module:
    """A copy in which each `Focus` is the one strided convolution that it amounts to.

    The k × k convolution over the four interleaved quarters of an image reads every pixel of a
    2k × 2k window once, the windows two pixels apart: a 2k × 2k convolution of stride 2 with the
    same weights in another order, and twice the padding. The graph is then free of strided slices,
    which ncnn does not have.
    """
    return replace_module(copy_model(model), Focus, BaseConv, _one_convolution)


def _one_convolution(focus: nn.Module, _: type[nn.Module]) -> BaseConv:
    assert isinstance(focus, Focus)
    old = focus.conv.conv
    weight = old.weight.detach()
    outputs, inputs, side = weight.shape[:3]
    unit = BaseConv(inputs // 4, outputs, 2 * side, 2 * old.stride[0], bias=old.bias is not None)
    # Channel (dx, dy, c) at tap (ky, kx) sees pixel (2 ky + dy, 2 kx + dx) of channel c.
    weight_OxyIkk = weight.reshape(outputs, 2, 2, inputs // 4, side, side)
    weight_OIkykx = weight_OxyIkk.permute(0, 3, 4, 2, 5, 1)
    unit.conv.weight = nn.Parameter(weight_OIkykx.reshape(unit.conv.weight.shape).contiguous())
    unit.conv.bias = old.bias
    unit.bn, unit.act = focus.conv.bn, focus.conv.act
    return unit.train(focus.training)
