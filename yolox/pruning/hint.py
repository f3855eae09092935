"""What one threshold over all scores could do, told before the cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolox.pruning.allocate import allowed_removals
from yolox.pruning.config import PruneConfig
from yolox.pruning.groups import Group

MAX_NAMED_LAYERS = 3  # layers that a hint names


@dataclass(frozen=True, kw_only=True)
class ThresholdHint:
    """A threshold removes every slot that scores below it, as in network slimming.

    Attributes:
        asked: the fraction of channels that the config asks for; None for a target in cost or a
            ratio by layer.
        max_sparsity: the cap a layer.
        threshold: the largest that empties no layer; layers without any score above 0 aside, as
            every threshold empties them.
        ratio: fraction of all prunable output channels that score below it, within the caps.
        limiting: the layers that a larger threshold would empty first, with their highest scores.
        zero: fraction of the channels that score 0: what sparsity training made spare.
        dead: the layers set aside.
        emptied: layers without any channel left if the asked ratio were taken by one threshold.
        reachable: the largest ratio within floors, caps and alignment, which empty no layer.
    """

    asked: float | None
    max_sparsity: float
    threshold: float
    ratio: float
    limiting: tuple[tuple[str, float], ...]
    zero: float
    dead: tuple[str, ...]
    emptied: tuple[str, ...]
    reachable: float

    def lines(self) -> list[str]:
        """What a person should know before the cut."""
        limits = ", ".join(f"{name} (up to {score:.3g})" for name, score in self.limiting)
        text = []
        if self.zero >= 0.0005:
            text.append(f"{self.zero:.1%} of the channels score 0")
        if self.dead:
            text.append(
                f"layers whose every channel scores 0: {_some(self.dead)}; with "
                f"`max_sparsity` {self.max_sparsity} each keeps a part"
            )
        if self.limiting:
            text.append(
                f"with one threshold for all scores, the largest threshold that empties no layer "
                f"is {self.threshold:.4g}: {self.ratio:.0%} of the channels; limited by {limits}"
            )
        if self.asked is not None and self.emptied:
            text.append(
                f"one threshold for {self.asked:.0%} of the channels would empty "
                f"{_some(self.emptied)}; with `max_sparsity` {self.max_sparsity} "
                f"none is, and up to {self.reachable:.0%} of the channels can go"
            )
        return text


def _some(layers: Sequence[str]) -> str:
    """How many, and the first few by name."""
    more = ", …" if len(layers) > MAX_NAMED_LAYERS else ""
    return f"{len(layers)} ({', '.join(layers[:MAX_NAMED_LAYERS])}{more})"


def threshold_hint(
    groups: Sequence[Group], scores: Sequence[Tensor], config: PruneConfig
) -> ThresholdHint:
    """Look at the first round's scores of the groups that may lose slots."""
    weights = [torch.full((g.size,), float(g.channels_per_slot)) for g in groups]
    flat, counts = torch.cat(list(scores)).double(), torch.cat(weights).double()
    total = counts.sum()
    highest = [float(s.max()) for s in scores]
    alive = [high > 0 for high in highest]
    threshold = min((high for high in highest if high > 0), default=0.0)
    order = flat.argsort(stable=True)
    reached = int(torch.searchsorted(counts[order].cumsum(0), config.ch_sparsity * total))
    asked = float(flat[order[min(reached, len(order) - 1)]])
    ranked = sorted(zip(groups, highest, strict=True), key=lambda pair: pair[1])
    limiting = tuple((group.name, score) for group, score in ranked if score > 0)
    most = [allowed_removals(g.size, config)[-1] * g.channels_per_slot for g in groups]
    below = sum(
        min(int((s < threshold).sum()) * g.channels_per_slot, cap) if lives else cap
        for g, s, cap, lives in zip(groups, scores, most, alive, strict=True)
    )
    return ThresholdHint(
        asked=None if config.target or config.layer_sparsity else config.ch_sparsity,
        max_sparsity=config.max_sparsity,
        threshold=threshold,
        ratio=float(below / total),
        limiting=limiting[:MAX_NAMED_LAYERS],
        zero=float(counts[flat == 0].sum() / total),
        dead=tuple(group.name for group, lives in zip(groups, alive, strict=True) if not lives),
        emptied=tuple(group.name for group, score in ranked if score <= asked),
        reachable=float(sum(most) / total),
    )
