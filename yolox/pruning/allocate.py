"""From scores to slots: how many each group loses, and which."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolox.pruning.balance import bundles, merge_bundles
from yolox.pruning.config import PruneConfig, PruningError
from yolox.pruning.cost import CostModel, LayerCost, channel_costs
from yolox.pruning.groups import Group
from yolox.pruning.select import group_ratios

ROUNDING_TOLERANCE = 1e-9  # relative, for sums of fractions
OVERSHOOT_TOLERANCE = 0.01  # of the whole: what more is saved than asked puts blocks back


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What layers cost, each where it is needed.

    Attributes:
        budget: in the unit of the config's target; None counts output channels.
        price: what a score is divided by in a global ranking; None divides by nothing.
    """

    budget: Mapping[str, LayerCost] | None = None
    price: Mapping[str, LayerCost] | None = None


def allocate(
    groups: Sequence[Group],
    scores: Sequence[Tensor],
    config: PruneConfig,
    *,
    costs: Costs | None = None,
    progress: float = 1.0,
    gone: Mapping[str, Sequence[int]] | None = None,
    emptiable: Collection[str] = (),
) -> dict[str, tuple[int, ...]]:
    """Choose the slots to remove.

    Args:
        groups: the groups that may lose slots.
        scores: one tensor (slots,) a group.
        config: budget, scope, alignment, floor and cap.
        costs: for a target in params or MACs, and for `PruneConfig.per`.
        progress: the part of the way to the budget to go, in (0, 1].
        gone: slots that earlier rounds removed; they stay removed.
        emptiable: groups that may lose all their slots, after those that their floor leaves.

    Returns:
        Sorted slots a group, groups that stay whole left out.

    Raises:
        PruningError: floors and caps do not allow the budget (nearest reachable named).
    """
    gone = gone or {}
    order = [_removal_order(s, gone.get(g.name, ())) for g, s in zip(groups, scores, strict=True)]
    together = bundles(groups)
    merged = merge_bundles(groups)
    allowed = [
        allowed_removals(group.size, config, empty=group.name in emptiable) for group in merged
    ]
    if config.fixed_ratios:
        counts = _counts_by_ratio(merged, allowed, config, progress)
    else:
        means = [torch.stack([order[n][1] for n in numbers]).mean(0) for numbers in together]
        values = _ranking(merged, means, config)
        least = [len(gone.get(group.name, ())) for group in merged]
        parts = [len(numbers) for numbers in together]
        greedy = _Greedy(merged, values, parts, allowed, least, config, costs or Costs())
        counts = greedy.counts(progress)
    return {
        groups[number].name: tuple(sorted(order[number][0].tolist()[:count]))
        for numbers, count in zip(together, counts, strict=True)
        for number in numbers
        if count
    }


def allowed_removals(size: int, config: PruneConfig, *, empty: bool = False) -> list[int]:
    """How many slots a group of this size may lose: 0, then every count that leaves it aligned.

    Args:
        size: slots of the group.
        config: the floor, the cap and the alignment.
        empty: whether it may lose all, too.
    """
    floor = max(config.min_channels, math.ceil(round(size * (1 - config.max_sparsity), 9)), 1)
    kept = range(size - 1, floor - 1, -1)
    aligned = [0, *(size - k for k in kept if k % config.round_to == 0)]
    return [*aligned, size] if empty else aligned


def _removal_order(scores: Tensor, gone: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Slots from the first to go to the last, and their scores in that order."""
    ranked = scores.double().clone()
    ranked[list(gone)] = -math.inf
    values, slots = ranked.sort(stable=True)
    return slots, values


def _counts_by_ratio(
    groups: Sequence[Group],
    allowed: Sequence[list[int]],
    config: PruneConfig,
    progress: float,
) -> list[int]:
    """The allowed count nearest to each group's own ratio.

    Raises:
        PruningError: floors and caps, rather than alignment, keep the layers from their ratios.
    """
    ratios = [ratio * progress for ratio in group_ratios(groups, config)]
    per_slot = [group.channels_per_slot for group in groups]
    total = sum(group.size * n for group, n in zip(groups, per_slot, strict=True))
    wanted = sum(
        group.size * n * ratio for group, n, ratio in zip(groups, per_slot, ratios, strict=True)
    )
    most = sum(
        min(removals[-1], group.size * ratio) * n
        for group, removals, n, ratio in zip(groups, allowed, per_slot, ratios, strict=True)
    )
    if most + sum(per_slot) * config.round_to / 2 < wanted:
        raise PruningError(
            f"{config.budget()} cannot be reached: at most {most / total:.3f} of these channels "
            "can go with these min_channels, max_sparsity and round_to; ask for less or loosen "
            "one of them"
        )
    return [
        min(removals, key=lambda r: (abs(r - ratio * group.size), -r))
        for group, removals, ratio in zip(groups, allowed, ratios, strict=True)
    ]


def _ranking(
    groups: Sequence[Group], values: Sequence[Tensor], config: PruneConfig
) -> list[Tensor]:
    """Sorted scores as they are, or as shares of the pool that the scope ranks them in."""
    if config.scope == "global":
        return list(values)
    kinds = [group.name if config.scope == "uniform" else group.kind for group in groups]
    ranked = [torch.empty_like(v) for v in values]
    for kind in dict.fromkeys(kinds):
        members = [number for number, other in enumerate(kinds) if other == kind]
        pool = torch.cat([values[number] for number in members])
        shares = torch.empty_like(pool)
        shares[pool.argsort(stable=True)] = torch.arange(len(pool), dtype=pool.dtype) + 0.5
        shares = torch.where(pool == -math.inf, pool, shares / len(pool))
        ends = torch.tensor([len(values[number]) for number in members]).cumsum(0)
        for number, part in zip(members, shares.tensor_split(ends[:-1]), strict=True):
            ranked[number] = part
    return ranked


class _Greedy:
    """Takes blocks of slots from all groups, cheapest loss first, until the budget is met.

    A block's price is its score for what it saves at that moment, or its mean score. What a block
    saves only falls as others go, so a price that is still the lowest when it is worked out anew is
    the lowest of all.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        values: Sequence[Tensor],
        parts: Sequence[int],
        allowed: Sequence[list[int]],
        least: Sequence[int],
        config: PruneConfig,
        costs: Costs,
    ) -> None:
        """Take stock.

        Args:
            groups: those of a bundle merged into one.
            values: in removal order, the mean over a bundle's groups.
            parts: how many groups each stands for.
            allowed: see `allowed_removals`.
            least: slots a group that go whatever the budget.
            config: see `allocate`.
            costs: see `allocate`.
        """
        if config.target is not None and costs.budget is None:
            raise PruningError(f"target {config.target} needs the costs of the layers")
        if config.per == "memory" and costs.price is None:
            raise PruningError("per memory needs the activations of the layers")
        self._config = config
        self._values, self._parts, self._allowed = values, parts, allowed
        self._budget = CostModel(groups, costs.budget or channel_costs(groups))
        self._price = CostModel(groups, costs.price) if costs.price else self._budget
        self._steps = [0] * len(groups)  # positions in `allowed`
        self._saved = 0.0
        self._forced = [
            next(step for step, count in enumerate(removals) if count >= kept)
            for removals, kept in zip(allowed, least, strict=True)
        ]

    def counts(self, progress: float) -> list[int]:
        """Slots to take from each group for a part of the way to the budget."""
        config = self._config
        share = config.ch_sparsity if config.target is None else 1 - config.target_fraction()
        goal = share * progress * self._budget.total
        for number, step in enumerate(self._forced):
            while self._steps[number] < step:
                self._take(number)
        queue = [
            (self._block_price(number), number)
            for number in range(len(self._steps))
            if self._has_next(number)
        ]
        heapq.heapify(queue)
        while queue and self._saved < goal * (1 - ROUNDING_TOLERANCE):
            _, number = heapq.heappop(queue)
            now = self._block_price(number)
            if queue and now > queue[0][0]:
                heapq.heappush(queue, (now, number))
                continue
            self._take(number)
            if self._has_next(number):
                heapq.heappush(queue, (self._block_price(number), number))
        if self._saved < goal * (1 - ROUNDING_TOLERANCE):
            raise PruningError(self._unreachable())
        self._put_back(goal)
        return [removals[step] for removals, step in zip(self._allowed, self._steps, strict=True)]

    def _has_next(self, number: int) -> bool:
        return self._steps[number] + 1 < len(self._allowed[number])

    def _block(self, number: int, step: int) -> Tensor:
        start, end = self._allowed[number][step : step + 2]
        return self._values[number][start:end]

    def _block_price(self, number: int) -> float:
        block = self._block(number, self._steps[number])
        if self._config.per == "none":
            return float(block.mean())
        loss = float(block.sum()) * self._parts[number]
        return loss / max(self._price.saving(number, len(block)), 1e-12)

    def _take(self, number: int) -> None:
        slots = len(self._block(number, self._steps[number]))
        self._saved += self._budget.remove(number, slots)
        if self._price is not self._budget:
            self._price.remove(number, slots)
        self._steps[number] += 1

    def _put_back(self, goal: float) -> None:
        """Give back whole blocks, most important first, where large blocks overshot the budget."""
        while self._saved > goal + OVERSHOOT_TOLERANCE * self._budget.total:
            candidates = []
            for number, step in enumerate(self._steps):
                if step > self._forced[number]:
                    block = self._block(number, step - 1)
                    cost = -self._budget.saving(number, -len(block))
                    if self._saved - cost >= goal * (1 - ROUNDING_TOLERANCE) and cost > 0:
                        candidates.append((float(block.mean()), cost, number, len(block)))
            if not candidates:
                return
            _, cost, number, slots = max(candidates)
            self._budget.remove(number, -slots)
            self._saved -= cost
            self._steps[number] -= 1

    def _unreachable(self) -> str:
        reached = self._saved / self._budget.total
        left = "" if self._config.target is None else f", so {1 - reached:.3f} is the least left"
        return (
            f"{self._config.budget()} cannot be reached: at most {reached:.3f} of it can go{left} "
            "with these min_channels, max_sparsity and round_to; ask for less or loosen one of them"
        )
