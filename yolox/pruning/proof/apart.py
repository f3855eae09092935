"""How far two models are apart, and with which weights, signals and mode they were run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yolox.pruning.config import PruningError

TOLERANCE = 1e-9  # relative, in float64: only the order of summation may differ
FAINT_RATIO = 1e-3  # of the largest value: a channel below is rounding to what sums it with others
SMALLEST_FLOAT = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One way in which both models are run.

    Attributes:
        draw: number of the redrawn weights; 0 are the trained ones.
        training: mode.
        noise: whether each layer's output is replaced with noise, or goes on as it is.
        batch: images.
        resized: at another size than the example's.
    """

    draw: int
    training: bool
    noise: bool
    batch: int = 2
    resized: bool = False

    def __str__(self) -> str:
        weights = f"redrawn weights {self.draw}" if self.draw else "its own weights"
        return f"with {weights}, in {'training' if self.training else 'evaluation'} mode"


class CutRefusedError(PruningError):
    """The pruned model is not what the masked one is, or that cannot be checked.

    Attributes:
        probe: with which it showed, where with one.
    """

    probe: Probe | None = None


def outputs_apart(outputs: Sequence[Any], expected: Sequence[Any]) -> float:
    """Largest relative difference of any channel, be it the second or the last dimension."""
    worst = 0.0
    if len(outputs) != len(expected):
        raise CutRefusedError(
            f"the pruned model has {len(outputs)} outputs, expected {len(expected)}"
        )
    for small, reference in zip(outputs, expected, strict=True):
        if not (isinstance(small, Tensor) and isinstance(reference, Tensor)):
            worst = max(worst, 0.0 if small == reference else float("inf"))
            continue
        if small.shape != reference.shape:
            raise CutRefusedError(
                f"output shapes differ: {tuple(small.shape)}, expected {tuple(reference.shape)}, "
                "so the cut is refused"
            )
        dims = {min(1, reference.dim() - 1), reference.dim() - 1} if reference.dim() else {None}
        apart = max(channels_apart(small, reference, dim) for dim in dims)
        # What a model rounds itself is judged to that precision.
        if reference.is_floating_point() and apart <= 8 * torch.finfo(reference.dtype).eps:
            apart = min(apart, TOLERANCE)
        worst = max(worst, apart)
    return worst


def channels_apart(small: Tensor, reference: Tensor, dim: int | None, faint: float = 0.0) -> float:
    """Largest difference in a channel over the largest value there, in the worst channel.

    Args:
        small: of the pruned model.
        reference: of the same shape, of the masked model.
        dim: of the channels; None: there are none.
        faint: no channel counts as fainter than this part of the largest value of all.
    """
    if small.shape != reference.shape:
        return float("inf")
    if small.dtype == reference.dtype and torch.equal(small, reference):
        return 0.0
    rows = [
        t.double().movedim(dim, 0).flatten(1) if dim is not None else t.double().view(1, 1)
        for t in (small, reference)
    ]
    apart = rows[0] - rows[1]
    largest = rows[1].abs().amax(1)
    relative = apart.abs().amax(1) / largest.clamp(
        min=max(SMALLEST_FLOAT, faint * float(largest.max()))
    )
    if relative.isfinite().all():
        return float(relative.max())
    # Values that are not finite have to be the same ones.
    same = (rows[0] == rows[1]) | (rows[0].isnan() & rows[1].isnan())
    scale = torch.where(rows[1].isfinite(), rows[1].abs(), 0.0).amax(1).clamp(min=SMALLEST_FLOAT)
    return float((torch.where(same, 0.0, apart.abs().nan_to_num(torch.inf)).amax(1) / scale).max())


def differs(worst: float, where: str, allowed: float = TOLERANCE) -> str:
    """Why a cut is refused whose outputs differ by so much, relative to a channel's largest."""
    return (
        f"the pruned model differs from the masked one by {worst:.1e} in {where}; at most "
        f"{allowed:.0e} of a channel is summation order, so the cut is refused"
    )


def flatten(output: Any) -> list[Any]:
    """The tensors of an output, and whatever else it holds, in their order."""
    if isinstance(output, dict):
        output = list(output.values())
    if not isinstance(output, (list, tuple)):
        return [output]
    return [leaf for value in output for leaf in flatten(value)]
