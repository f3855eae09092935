"""Groups that have to lose equally many slots: chosen together, each its own least important."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.pruning.helpers import bare
from tests.pruning.test_label_trace import halves
from yolox.pruning import Group, Member, PruningError, plan_pruning, prune_model
from yolox.pruning.allocate import Costs, allocate
from yolox.pruning.cost import LayerCost
from yolox.pruning.latency.plan import LatencyPlanner
from yolox.pruning.select import select_groups
from yolox.pruning.sensitivity import measure_sensitivity, pending, prune_ratios


def group(name: str, layer: str, start: int, size: int, balance: str = "") -> Group:
    index = np.arange(start, start + size)[:, None]
    member = Member(name=layer, axis="out", index=index, produces=True)
    return Group(name=name, size=size, members=(member,), balance=balance)


GROUPS = [group("a", "a", 0, 4, "a"), group("a#2", "a", 4, 4, "a"), group("b", "b", 0, 8)]
SCORES = [
    torch.tensor([1.0, 8.0, 2.0, 7.0]),
    torch.tensor([9.0, 3.0, 6.0, 1.0]),
    torch.tensor([4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5]),
]


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_each_half_loses_its_own_least_important_slots(scope: str) -> None:
    removed = allocate(GROUPS, SCORES, bare(ch_sparsity=0.5, scope=scope))
    assert removed["a"] == (0, 2)
    assert removed["a#2"] == (1, 3)


def test_a_pair_costs_what_both_of_its_slots_cost() -> None:
    # Per unit of cost b is dearer than the halves' mean of 1, cheaper than that of 2.5.
    costs = Costs(budget={n: LayerCost(cost=8, outputs=8, inputs=None) for n in "ab"})
    scores = [torch.tensor([1.0, 2.5, 9, 9]), torch.tensor([1.0, 2.5, 9, 9]), torch.full((8,), 2.0)]
    config = bare(target="params=0.75", per="cost")
    removed = allocate(GROUPS, scores, config, costs=costs)
    assert {name: len(slots) for name, slots in removed.items()} == {"a": 1, "a#2": 1, "b": 2}


def test_what_is_gone_stays_gone_in_the_next_round() -> None:
    removed = allocate(
        GROUPS,
        SCORES,
        bare(ch_sparsity=0.5, scope="uniform"),
        gone={"a": (3,), "a#2": (0,)},
    )
    assert removed["a"] == (0, 3)
    assert removed["a#2"] == (0, 3)


def test_named_or_ignored_halves_take_each_other_along() -> None:
    _, groups = halves()
    named = select_groups(groups, bare(mode="conv", layers=("a",), ch_sparsity=0.3))
    assert [g.name for g in named] == ["a", "a#2"]
    left = select_groups(groups, bare(mode="global", ignore=("a",), ch_sparsity=0.3))
    assert [g.name for g in left] == ["b", "read"]


def test_a_latency_plan_takes_as_many_from_both_halves() -> None:
    model, groups = halves()
    config = bare(target="latency=0.5", importance="l1")
    costs = _Channels(len(groups) - 1)
    scores = [
        torch.arange(float(g.size)).flip(0) if "#" in g.name else torch.arange(float(g.size))
        for g in groups
    ]
    planner = LatencyPlanner(model, groups, groups, config, costs, lambda _m, _g: scores)
    plan, _ = planner.plan(planner.whole / 2)
    assert len(plan.removed["a"]) == len(plan.removed["a#2"]) > 0
    assert 0 in plan.removed["a"]
    assert 5 in plan.removed["a#2"]
    plan.check(groups)


class _Channels:
    """A cost of one for each slot of a bundle."""

    def __init__(self, bundles: int) -> None:
        self.bundles = bundles

    def at(self, kept: list[int]) -> float:
        assert len(kept) == self.bundles
        return float(sum(kept))

    def choices(self, group: int, counts: np.ndarray, kept: list[int]) -> np.ndarray:
        return counts.astype(float)


def test_sensitivity_measures_halves_together_once() -> None:
    model, groups = halves()
    todo = pending(groups, [0.5])
    assert [g.name for g, _ in todo] == ["a", "b", "read"]
    scores = {g.name: torch.arange(float(g.size)) for g in groups}
    masks: list[Any] = []

    def measure(masked: nn.Module) -> float:
        masks.append(masked)
        return 0.0

    points = list(measure_sensitivity(model, groups, todo, scores, measure))
    assert [p.removed for p in points] == [3, 6, 3]
    silent = masks[0].read.weight.detach().abs().sum((0, 2, 3)) == 0
    assert silent.nonzero().ravel().tolist() == [0, 1, 2, 6, 7, 8]  # the halves lie swapped
    assert prune_ratios(groups, {"a": 0.5, "b": 0.0, "read": 0.25}) == {"a": 0.5, "read": 0.25}


def test_both_halves_are_cut_and_proved_together() -> None:
    model, _ = halves()
    x = torch.rand(1, 3, 16, 16)
    result = prune_model(model, x, bare(importance="l1", ch_sparsity=0.5, scope="uniform"))
    assert result.model.a.out_channels == 6
    assert len(result.plan.removed["a"]) == len(result.plan.removed["a#2"]) == 3


def test_the_plan_in_json_keeps_the_slots_of_each_half() -> None:
    model, groups = halves()
    plan = plan_pruning(model, groups, bare(importance="l1", ch_sparsity=0.5, scope="uniform"))
    again = type(plan).from_dict(plan.to_dict())
    assert again.removed == plan.removed
    again.removed["a"] = again.removed["a"][:-1]
    with pytest.raises(PruningError, match="equally many"):
        again.check(groups)
