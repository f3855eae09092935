"""Which layers stay in float: ranked by what rounding each alone does to the detections.

Shape suffixes: B images, A anchor points, C classes, k anchors that count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from yolox.export.graph import Deployed, fold_focus
from yolox.models import YOLOX
from yolox.utils.boxes import cxcywh2xyxy
from yolox.utils.model_utils import fuse_model
from yolox.utils.progress import track

ACTIVATION_LEVELS = 256  # of an activation in 8 bits
WEIGHT_STEPS = 127  # either side of 0, of a weight in 8 bits
COUNTED_ANCHORS = 100  # anchors of an image that make its detections
_EPSILON = 1e-8


@torch.no_grad()
def rank_layers(model: YOLOX, layers: Sequence[str], images: Tensor) -> list[tuple[str, float]]:
    """Layers and the error that each causes, the most harmful first.

    Each layer in turn is computed with its weights, input and output rounded to 8 bits, all others
    in float32, in PyTorch: that takes one pass a layer, and serves every runtime.

    Args:
        model: not touched.
        layers: names of convolutions in the exported graph.
        images: float32 (B, 3, H, W), a few.
    """
    copy = Deployed(cast(YOLOX, fold_focus(fuse_model(model))), decode=True).eval()
    expected = copy(images)
    errors = []
    for layer in track(layers, "Sensitivity"):
        conv = copy.model.get_submodule(layer)
        assert isinstance(conv, nn.Conv2d)
        with rounded(conv):
            errors.append((layer, detection_error(expected, copy(images))))
    return sorted(errors, key=lambda pair: -pair[1])


@contextmanager
def rounded(conv: nn.Conv2d) -> Iterator[None]:
    """Let a convolution compute with weights, input and output rounded, as int8 kernels do."""
    before = conv.weight.detach().clone()
    conv.weight.copy_(round_weight(before))
    hooks = (
        conv.register_forward_pre_hook(lambda _, args: (round_activation(args[0]),)),
        conv.register_forward_hook(lambda _, args, out: round_activation(out)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        conv.weight.copy_(before)


def round_weight(weight: Tensor) -> Tensor:
    """Weights (O, I, kh, kw) on a symmetric grid an output channel."""
    scale = weight.abs().flatten(1).amax(dim=1).clamp(min=_EPSILON) / WEIGHT_STEPS
    scale = scale[:, None, None, None]
    return (weight / scale).round() * scale


def round_activation(x: Tensor) -> Tensor:
    """Any tensor on a grid of 256 levels from its least to its largest value, 0 among them."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = ((high - low) / (ACTIVATION_LEVELS - 1)).clamp(min=_EPSILON)
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, ACTIVATION_LEVELS - 1) - zero) * scale


def detection_error(expected_BAK: Tensor, got_BAK: Tensor) -> float:
    """How far decoded predictions (B, A, 5 + C) are from others, from 0 to 2.

    The mean, over the anchors of an image with the highest scores in either, of the change of the
    score and of the IoU that the boxes lack. All other anchors make no detection.
    """
    scores = [(x[..., 4:5] * x[..., 5:]).amax(dim=-1) for x in (expected_BAK, got_BAK)]
    highest = torch.maximum(*scores)
    k_Bk = highest.topk(min(COUNTED_ANCHORS, highest.shape[1]), dim=1).indices
    change = (scores[0] - scores[1]).abs().gather(1, k_Bk)
    where = k_Bk[..., None].expand(-1, -1, 4)
    boxes = [cxcywh2xyxy(x[..., :4].gather(1, where)) for x in (expected_BAK, got_BAK)]
    error = float((change + 1 - _paired_iou(*boxes)).mean())
    return error if math.isfinite(error) else 2.0


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (…, 4), x1 y1 x2 y2, pair by pair."""
    corners = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (corners[1] - corners[0]).clamp(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(dim=-1) for x in (a, b)]
    iou: Tensor = shared / (areas[0] + areas[1] - shared).clamp(min=_EPSILON)
    return iou


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A file with so many layers in float, and its measure (AP50-95)."""

    kept: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search for the layers to keep tried, and what it settled on.

    Attributes:
        chosen: the fewest layers found that meet the floor; where none do, the best attempt.
        met: whether it meets the floor.
        attempts: in the order in which they were made.
    """

    chosen: Attempt
    met: bool
    attempts: tuple[Attempt, ...]


def find_fewest(measure: Callable[[int], float], most: int, floor: float) -> Search:
    """The least number of layers in float whose measure is at least a floor.

    0, then 1, 2, 4, … up to `most`, until one will do; then halving between it and the one before.
    More layers are taken to be better; where they are not, a number that will do is still found.

    Args:
        measure: number of layers → higher is better; called once a number.
        most: largest number to try.
        floor: least measure that will do.
    """
    attempts: list[Attempt] = []

    def will_do(kept: int) -> bool:
        attempts.append(Attempt(kept=kept, value=measure(kept)))
        return attempts[-1].value >= floor

    failed, kept = -1, 0
    while not will_do(kept):
        if kept >= most:
            best = max(attempts, key=lambda a: (a.value, -a.kept))
            return Search(chosen=best, met=False, attempts=tuple(attempts))
        failed, kept = kept, min(max(2 * kept, 1), most)
    while kept - failed > 1:
        middle = (failed + kept) // 2
        if will_do(middle):
            kept = middle
        else:
            failed = middle
    chosen = next(a for a in attempts if a.kept == kept)
    return Search(chosen=chosen, met=True, attempts=tuple(attempts))
