"""From scores to slots: how many each group loses, and which."""

from __future__ import annotations

import difflib
import fnmatch
import heapq
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from yolox.pruning.cost import CostModel, LayerCost, channel_costs
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruneConfig, PruningError


def select_groups(groups: Sequence[Group], config: PruneConfig) -> list[Group]:
    """The groups that a config speaks of; a group shared by several named layers comes once.

    Raises:
        PruningError: a name or pattern that matches no prunable convolution (nearest names shown).
    """
    if config.mode == "global":
        return list(groups)
    names = [member.name for group in groups for member in group.producers]
    chosen: set[str] = set()
    for wanted in config.layers:
        matches = _matches(wanted, names, exact=config.mode == "conv")
        if not matches:
            near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.0)
            raise PruningError(
                f"--layers {wanted!r} matches no prunable convolution; nearest: {', '.join(near)} "
                "(--mode list shows them all)"
            )
        chosen.update(matches)
    return [group for group in groups if any(m.name in chosen for m in group.producers)]


def _matches(wanted: str, names: Sequence[str], *, exact: bool) -> list[str]:
    """Convolutions meant by a name: itself, or the unit it belongs to, or (not exact) a pattern."""
    own = [name for name in names if name in (wanted, f"{wanted}.conv")]
    if own or exact:
        return own
    return [
        name for name in names if fnmatch.fnmatchcase(name, wanted) or name.startswith(f"{wanted}.")
    ]


def allocate(
    groups: Sequence[Group],
    scores: Sequence[Tensor],
    config: PruneConfig,
    *,
    costs: Mapping[str, LayerCost] | None = None,
    progress: float = 1.0,
    gone: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Choose the slots to remove.

    Args:
        groups: the groups that may lose slots.
        scores: one tensor (slots,) a group.
        config: budget, scope, alignment, floor and cap.
        costs: what each layer of the model costs, for a target in params or MACs.
        progress: the part of the way to the budget to go, in (0, 1].
        gone: slots that earlier rounds removed; they stay removed.

    Returns:
        Sorted slots a group, groups that stay whole left out.

    Raises:
        PruningError: floors and caps do not allow the budget (nearest reachable named).
    """
    order = [
        _removal_order(g, s, (gone or {}).get(g.name, ()))
        for g, s in zip(groups, scores, strict=True)
    ]
    allowed = [_allowed_removals(group.size, config) for group in groups]
    if config.mode == "global":
        counts = _global_counts(groups, [v for _, v in order], allowed, config, costs, progress)
    else:
        ratio = config.ch_sparsity * progress
        _require_reachable(groups, allowed, config, ratio)
        counts = [
            min(removals, key=lambda r: (abs(r - ratio * group.size), -r))
            for group, removals in zip(groups, allowed, strict=True)
        ]
    return {
        group.name: tuple(sorted(slots.tolist()[:count]))
        for group, (slots, _), count in zip(groups, order, counts, strict=True)
        if count
    }


def _require_reachable(
    groups: Sequence[Group], allowed: Sequence[list[int]], config: PruneConfig, ratio: float
) -> None:
    """Refuse a ratio that the floors and caps, rather than alignment, keep the layers from."""
    per_slot = [group.channels_per_slot for group in groups]
    total = sum(group.size * n for group, n in zip(groups, per_slot, strict=True))
    most = sum(removals[-1] * n for removals, n in zip(allowed, per_slot, strict=True))
    if most + sum(per_slot) * config.round_to / 2 < ratio * total:
        raise PruningError(
            f"ch_sparsity {ratio:.3f} cannot be reached: at most {most / total:.3f} of it can go "
            "with these min_channels, max_sparsity and round_to; ask for less or loosen one of them"
        )


def _removal_order(group: Group, scores: Tensor, gone: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Slots from the first to go to the last, and their scores in that order."""
    ranked = scores.double().clone()
    ranked[list(gone)] = -math.inf
    values, slots = ranked.sort(stable=True)
    return slots, values


def _allowed_removals(size: int, config: PruneConfig) -> list[int]:
    """How many slots a group of this size may lose: 0, then every count that leaves it aligned."""
    floor = max(config.min_channels, math.ceil(round(size * (1 - config.max_sparsity), 9)), 1)
    kept = range(size - 1, floor - 1, -1)
    return [0, *(size - k for k in kept if k % config.round_to == 0)]


def _global_counts(
    groups: Sequence[Group],
    values: Sequence[Tensor],
    allowed: Sequence[list[int]],
    config: PruneConfig,
    costs: Mapping[str, LayerCost] | None,
    progress: float,
) -> list[int]:
    """Take blocks of slots from all groups, cheapest loss first, until the budget is met.

    For a ratio of channels a block's price is its mean score; for a target in params or MACs it is
    its score for what it saves at that moment. What a block saves only falls as others go, so a
    price that is still the lowest when it is worked out anew is the lowest of all.
    """
    by_saving = config.target is not None
    if by_saving and costs is None:
        raise PruningError(f"target {config.target} needs the costs of the layers")
    model = CostModel(groups, costs if by_saving and costs else channel_costs(groups))
    goal = 1 - config.target_fraction() if by_saving else config.ch_sparsity

    def price(number: int, step: int) -> float:
        start, end = allowed[number][step], allowed[number][step + 1]
        block = values[number][start:end]
        if not by_saving:
            return float(block.mean())
        return float(block.sum()) / max(model.saving(number, end - start), 1e-12)

    queue = [(price(n, 0), n, 0) for n, removals in enumerate(allowed) if len(removals) > 1]
    heapq.heapify(queue)
    counts = [0] * len(groups)
    saved = 0.0
    # What earlier rounds removed is priced −inf, and goes whatever the budget.
    while queue and (
        queue[0][0] == -math.inf or saved < goal * progress * model.total * (1 - 1e-9)
    ):
        _, number, step = heapq.heappop(queue)
        now = price(number, step)
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, number, step))
            continue
        start, end = allowed[number][step], allowed[number][step + 1]
        saved += model.remove(number, end - start)
        counts[number] = end
        if step + 2 < len(allowed[number]):
            heapq.heappush(queue, (price(number, step + 1), number, step + 1))
    if saved < goal * progress * model.total * (1 - 1e-9):
        raise PruningError(
            f"{config.budget()} cannot be reached: at most {saved / model.total:.3f} of it can go "
            "with these min_channels, max_sparsity and round_to; ask for less or loosen one of them"
        )
    return counts
