"""What one threshold over all scores could do, told before the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolox.pruning.allocate import allowed_removals
from yolox.pruning.config import PruneConfig
from yolox.pruning.groups import Group

NAMED = 3  # layers that a hint names


@dataclass(frozen=True, kw_only=True)
class ThresholdHint:
    """A threshold removes every slot that scores below it, as in network slimming.

    Attributes:
        asked: the fraction of channels that the config asks for; None for a target in cost.
        max_sparsity: the cap a layer.
        threshold: the largest that empties no layer.
        ratio: fraction of all prunable output channels that score below it.
        limiting: the layers that a larger threshold would empty first, with their highest scores.
        emptied: layers without any channel left if the asked ratio were taken by one threshold.
        reachable: the largest ratio within floors, caps and alignment, which empty no layer.
    """

    asked: float | None
    max_sparsity: float
    threshold: float
    ratio: float
    limiting: tuple[tuple[str, float], ...]
    emptied: tuple[str, ...]
    reachable: float

    def lines(self) -> list[str]:
        """What a person should know before the cut."""
        limits = ", ".join(f"{name} (up to {score:.3g})" for name, score in self.limiting)
        text = [
            f"largest threshold that empties no layer: {self.threshold:.4g}, which is "
            f"{self.ratio:.0%} of the channels; limited by {limits}"
        ]
        if self.asked is not None and self.emptied:
            first = ", ".join(self.emptied[:NAMED])
            text.append(
                f"one threshold for {self.asked:.0%} of the channels would empty "
                f"{len(self.emptied)} layers ({first}); with max_sparsity {self.max_sparsity} "
                f"none is, and up to {self.reachable:.0%} of the channels can go"
            )
        return text


def threshold_hint(
    groups: Sequence[Group], scores: Sequence[Tensor], config: PruneConfig
) -> ThresholdHint:
    """Look at the first round's scores of the groups that may lose slots."""
    weights = [torch.full((g.size,), float(g.channels_per_slot)) for g in groups]
    flat, counts = torch.cat(list(scores)).double(), torch.cat(weights).double()
    total = counts.sum()
    highest = [float(s.max()) for s in scores]
    threshold = min(highest)
    order = flat.argsort(stable=True)
    reached = int(torch.searchsorted(counts[order].cumsum(0), config.ch_sparsity * total))
    asked = float(flat[order[min(reached, len(order) - 1)]])
    ranked = sorted(zip(groups, highest, strict=True), key=lambda pair: pair[1])
    most = sum(allowed_removals(g.size, config)[-1] * g.channels_per_slot for g in groups)
    return ThresholdHint(
        asked=None if config.target else config.ch_sparsity,
        max_sparsity=config.max_sparsity,
        threshold=threshold,
        ratio=float(counts[flat < threshold].sum() / total),
        limiting=tuple((group.name, score) for group, score in ranked[:NAMED]),
        emptied=tuple(group.name for group, score in ranked if score <= asked),
        reachable=float(most / total),
    )
