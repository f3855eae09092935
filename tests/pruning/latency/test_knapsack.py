"""What the knapsack keeps, against every combination there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from tests.pruning.helpers import DenseNet, ResNet
from yolox.pruning import trace_groups
from yolox.pruning.cost import CostModel, Counts, LayerSum, Values, mac_costs
from yolox.pruning.latency.knapsack import Item, cheapest, importance, solve

LARGEST_GAP = 0.05  # of the importance of the best combination, over the cases below


class Tabled:
    """Any cost function of all groups together, worked out in full each time."""

    def __init__(self, function: Callable[[Sequence[int]], float]) -> None:
        self.at = function

    def choices(self, group: int, counts: Counts, kept: Sequence[int]) -> Values:
        return np.array([self.at([*kept[:group], int(c), *kept[group + 1 :]]) for c in counts])


def random_items(rng: np.random.Generator, groups: int, slots: int) -> list[Item]:
    items = []
    for _ in range(groups):
        scores = np.sort(rng.exponential(size=slots) * rng.uniform(0.2, 3))[::-1]
        kept = np.arange(1, slots + 1)
        items.append(Item(counts=kept, values=np.cumsum(scores)))
    return items


def best_of_all(items: Sequence[Item], costs: Tabled, budget: float) -> float:
    combinations = itertools.product(*(item.counts.tolist() for item in items))
    return max(importance(items, k) for k in combinations if costs.at(k) <= budget)


def chain(widths: Sequence[int], step: int) -> Callable[[Sequence[int]], float]:
    """A chain of layers, each reading the group before: cost by blocks of channels, both ways."""

    def cost(kept: Sequence[int]) -> float:
        blocks = [-(-k // step) for k in kept]
        pairs = zip([2, *blocks], [*blocks, 3], strict=True)
        return 1.0 + sum(w * i * o + 0.3 * o for w, (i, o) in zip(widths, pairs, strict=True))

    return cost


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_it_keeps_almost_what_the_best_combination_keeps(
    seed: int, fraction: float, step: int
) -> None:
    rng = np.random.default_rng(seed)
    items = random_items(rng, 4, 6)
    costs = Tabled(chain(rng.uniform(0.5, 4, 5).tolist(), step))
    whole, least = (costs.at([int(item.counts[end]) for item in items]) for end in (-1, 0))
    budget = least + fraction * (whole - least)
    kept = solve(items, costs, budget)
    assert kept is not None
    assert costs.at(kept) <= budget * (1 + 1e-6)
    best = best_of_all(items, costs, budget)
    assert importance(items, kept) >= (1 - LARGEST_GAP) * best


def test_independent_items_of_equal_cost_are_taken_by_importance() -> None:
    items = [
        Item(counts=np.arange(4), values=np.array([0.0, 9.0, 12.0, 13.0])),
        Item(counts=np.arange(4), values=np.array([0.0, 7.0, 10.0, 12.0])),
    ]
    assert solve(items, Tabled(sum), 3) == [2, 1]
    assert solve(items, Tabled(sum), 4) == [2, 2]


def test_a_cost_that_falls_where_more_is_kept_is_made_use_of() -> None:
    """4 channels run slower than 8, as where a runtime has a fast path for whole blocks."""
    times = {2: 2.0, 4: 6.0, 8: 5.0}
    item = Item(counts=np.array([2, 4, 8]), values=np.array([1.0, 2.0, 3.0]))
    costs = Tabled(lambda kept: sum(times[k] for k in kept))
    assert solve([item], costs, 5.5) == [8]
    assert solve([item], costs, 4.9) == [2]
    assert solve([item, item], costs, 7.0) in ([8, 2], [2, 8])


def test_nothing_goes_where_the_whole_fits_and_none_is_found_where_nothing_does() -> None:
    items = random_items(np.random.default_rng(0), 3, 5)
    costs = Tabled(chain([1, 1, 1, 1], 1))
    whole, least = [5, 5, 5], [1, 1, 1]
    assert solve(items, costs, costs.at(whole)) == whole
    assert cheapest(items, costs) == least
    assert solve(items, costs, costs.at(least)) == least
    assert solve(items, costs, costs.at(least) - 0.01) is None


def test_the_same_twice() -> None:
    items = random_items(np.random.default_rng(5), 6, 9)
    costs = Tabled(chain([1, 2, 1, 3, 1, 2, 1], 2))
    assert solve(items, costs, 60.0) == solve(items, costs, 60.0)


@pytest.mark.parametrize("net", [ResNet, DenseNet])
def test_a_budget_in_macs_is_kept_and_used(net: type[torch.nn.Module]) -> None:
    """The same costs as the greedy allocation's, here as functions of what is kept."""
    model, x = net(), torch.rand(1, 3, 16, 16)
    groups = trace_groups(model, x)
    base = mac_costs(model, x)
    costs = LayerSum(groups, base)
    whole = [group.size for group in groups]
    assert costs.at(whole) == pytest.approx(CostModel(groups, base).total)

    rng = np.random.default_rng(0)
    items = []
    for group in groups:
        scores = np.sort(rng.exponential(size=group.size))[::-1]
        items.append(Item(counts=np.arange(1, group.size + 1), values=np.cumsum(scores)))
    budget = 0.5 * costs.at(whole)
    kept = solve(items, costs, budget)
    assert kept is not None
    left = CostModel(groups, base)
    saved = sum(
        left.remove(n, g.size - k) for n, (g, k) in enumerate(zip(groups, kept, strict=True))
    )
    assert left.total - saved == pytest.approx(costs.at(kept))
    assert 0.9 * budget <= costs.at(kept) <= budget * (1 + 1e-6)
    for number, group in enumerate(groups):
        counts = np.arange(1, group.size + 1)
        parts = costs.choices(number, counts, kept)
        full = [costs.at([*kept[:number], int(c), *kept[number + 1 :]]) for c in counts]
        assert parts - parts[0] == pytest.approx(np.array(full) - full[0])
