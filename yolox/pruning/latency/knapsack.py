"""How much each group keeps, so that the most importance remains within a cost.

A knapsack of latency as in HALP (Shen et al. 2022, arXiv:2110.10811), whose items are independent:
there a layer's cost depends on its outputs alone. A layer that has lost inputs as well costs less
still, so here the cost is any function of all groups together. That is no longer solved by dynamic
programming; Lagrangian relaxation takes its place: for a price of cost, each group in turn takes
the count that is best while the others stay, until none changes; the price is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolox.pruning.cost import Counts, SlotCosts, Values

ROUNDING_TOLERANCE = 1e-9  # relative, for sums of fractions
MAX_SWEEPS = 100  # over all groups; a few are usual
MAX_HALVINGS = 40  # of the price's interval, on a logarithmic scale
PRICE_GROWTH = 4.0  # of the price, until the budget is met
MAX_GROWTHS = 40


@dataclass(frozen=True, kw_only=True)
class Item:
    """A group's choices.

    Attributes:
        counts: int (n,), slots that it may keep, rising; the last is what it has.
        values: float (n,), the importance that is kept with each, rising.
    """

    counts: Counts
    values: Values


def cheapest(items: Sequence[Item], costs: SlotCosts) -> list[int]:
    """Counts of the least cost that was found; importance decides between equals."""
    starts = [[int(item.counts[end]) for item in items] for end in (0, -1)]
    settled = [_settle(items, costs, math.inf, start) for start in starts]
    return min(settled, key=costs.at)


def solve(items: Sequence[Item], costs: SlotCosts, budget: float) -> list[int] | None:
    """Counts that keep much importance at no more than a cost, or None if none was found.

    Deterministic. Exact where a price of cost separates what is kept from what is not; else
    what is left of the budget goes to the most important slots for their cost that still fit.
    """
    whole = [int(item.counts[-1]) for item in items]
    limit = budget * (1 + ROUNDING_TOLERANCE)
    if costs.at(whole) <= limit:
        return whole
    least = cheapest(items, costs)
    if costs.at(least) > limit:
        return None
    below, above = _bisect(items, costs, limit, whole, least)
    shrunk = _take_away(items, costs, above, limit)
    candidates = [below] if shrunk is None else [below, shrunk]
    filled = [_put_back(items, costs, kept, limit) for kept in candidates]
    return max(filled, key=lambda kept: importance(items, kept))


def importance(items: Sequence[Item], kept: Sequence[int]) -> float:
    """What counts keep."""
    return sum(
        float(item.values[np.searchsorted(item.counts, count)])
        for item, count in zip(items, kept, strict=True)
    )


def _bisect(
    items: Sequence[Item], costs: SlotCosts, limit: float, whole: list[int], least: list[int]
) -> tuple[list[int], list[int]]:
    """The best counts within the limit, and the nearest beyond it, over all prices tried."""
    below, above = least, whole

    def fits(price: float) -> bool:
        nonlocal below, above
        options = [_settle(items, costs, price, start) for start in (whole, above, below)]
        kept = max(options, key=lambda k: importance(items, k) - price * costs.at(k))
        if costs.at(kept) > limit:
            above = min(above, kept, key=costs.at)
            return False
        below = max(below, kept, key=lambda k: importance(items, k))
        return True

    low = ROUNDING_TOLERANCE * importance(items, whole) / costs.at(whole)
    high = low
    for _ in range(MAX_GROWTHS):
        if fits(high):
            break
        low, high = high, high * PRICE_GROWTH
    for _ in range(MAX_HALVINGS):
        middle = math.sqrt(low * high)
        if middle in (low, high):
            break
        if fits(middle):
            high = middle
        else:
            low = middle
    return below, above


def _settle(
    items: Sequence[Item], costs: SlotCosts, price: float, start: Sequence[int]
) -> list[int]:
    """Coordinate descent on lost importance + price · cost; a price of infinity is cost alone."""
    kept = list(start)
    for _ in range(MAX_SWEEPS):
        changed = False
        for number, item in enumerate(items):
            cost = costs.choices(number, item.counts, kept)
            gain = -cost if math.isinf(price) else item.values - price * cost
            now = int(np.searchsorted(item.counts, kept[number]))
            best = int(gain.argmax())
            if gain[best] > gain[now] + ROUNDING_TOLERANCE * abs(gain[now]):
                kept[number] = int(item.counts[best])
                changed = True
        if not changed:
            break
    return kept


def _put_back(
    items: Sequence[Item], costs: SlotCosts, start: Sequence[int], limit: float
) -> list[int]:
    """Widen groups, most importance for its cost first, as long as something fits."""
    kept = list(start)
    while True:
        room = limit - costs.at(kept)
        best = (0.0, 0, 0)
        for number, item in enumerate(items):
            now = int(np.searchsorted(item.counts, kept[number]))
            gain = item.values[now + 1 :] - item.values[now]
            if not len(gain):
                continue
            cost = costs.choices(number, item.counts, kept)
            extra = cost[now + 1 :] - cost[now]
            rate = np.where(
                extra <= room, gain / np.maximum(extra, ROUNDING_TOLERANCE * limit), 0.0
            )
            choice = int(rate.argmax())
            best = max(best, (float(rate[choice]), -number, int(item.counts[now + 1 + choice])))
        if best[0] <= 0:
            return kept
        kept[-best[1]] = best[2]


def _take_away(
    items: Sequence[Item], costs: SlotCosts, start: Sequence[int], limit: float
) -> list[int] | None:
    """Narrow groups, least importance for its cost first, until it fits; None if nothing helps."""
    kept = list(start)
    while (excess := costs.at(kept) - limit) > 0:
        best = (math.inf, 0, 0)
        for number, item in enumerate(items):
            now = int(np.searchsorted(item.counts, kept[number]))
            if not now:
                continue
            cost = costs.choices(number, item.counts, kept)
            saved = np.minimum(cost[now] - cost[:now], excess)
            loss = item.values[now] - item.values[:now]
            rate = np.where(
                saved > ROUNDING_TOLERANCE * limit,
                loss / np.maximum(saved, ROUNDING_TOLERANCE * limit),
                np.inf,
            )
            choice = int(rate.argmin())
            best = min(best, (float(rate[choice]), number, int(item.counts[choice])))
        if math.isinf(best[0]):
            return None
        kept[best[1]] = best[2]
    return kept
