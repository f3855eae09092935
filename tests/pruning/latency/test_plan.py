"""Plans for a latency, with made-up costs and a made-up runtime that differs from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import ResNet, bare, enliven
from yolox.pruning import Group, PruneConfig, PruningError, PruningPlan, plan_pruning, trace_groups
from yolox.pruning.config import LatencyTarget
from yolox.pruning.cost import Counts, LayerSum, Values
from yolox.pruning.groups import Axis
from yolox.pruning.importance import WeightScorer, l1_norms
from yolox.pruning.latency.plan import LatencyPlanner, Search, search
from yolox.pruning.latency.record import LatencyRecord

SCORER = WeightScorer(values=l1_norms)


class Stairs:
    """A layer that takes as long as whole blocks of two channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._widths: dict[Axis, int] = {"in": inputs, "out": outputs}

    def width(self, axis: Axis) -> int:
        return self._widths[axis]

    def at(self, inputs: Counts, outputs: Counts) -> Values:
        return 0.1 + 0.01 * (-(-inputs // 2)) * (-(-outputs // 2)).astype(np.float64)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return enliven(ResNet())


@pytest.fixture(scope="module")
def groups(model: nn.Module) -> list[Group]:
    return trace_groups(model, torch.rand(1, 3, 16, 16))


def config(target: str = "latency=0.6", **fields: object) -> PruneConfig:
    return bare(**({"target": target, "importance": "l1", "rounds": 1} | fields))


def costs_of(model: nn.Module, groups: Sequence[Group]) -> LayerSum:
    layers = {
        name: Stairs(conv.in_channels, conv.out_channels)
        for name, conv in model.named_modules()
        if isinstance(conv, nn.Conv2d)
    }
    return LayerSum(groups, layers)


def planner_of(
    model: nn.Module, groups: list[Group], prune: PruneConfig, scorer: object = SCORER
) -> LatencyPlanner:
    costs = costs_of(model, groups)
    return LatencyPlanner(model, groups, groups, prune, costs, scorer)  # type: ignore[arg-type]


def kept(groups: Sequence[Group], plan: PruningPlan) -> list[int]:
    return [group.size - len(plan.removed.get(group.name, ())) for group in groups]


def runtime(
    model: nn.Module, groups: Sequence[Group], distort: Callable[[float], float]
) -> Callable[[PruningPlan], tuple[float, float]]:
    """Milliseconds of the parent and of a plan: what is predicted, distorted."""
    costs = costs_of(model, groups)
    whole = distort(costs.at([group.size for group in groups]))
    return lambda plan: (whole, distort(costs.at(kept(groups, plan))))


def run(
    model: nn.Module,
    groups: list[Group],
    target: str,
    distort: Callable[[float], float] = lambda ms: ms,
    **fields: object,
) -> Search:
    prune = config(target, **fields)
    planner = planner_of(model, groups, prune)
    return search(planner, prune.latency_target(), planner.whole, runtime(model, groups, distort))


def test_a_plan_is_within_its_budget_and_takes_the_least_important(
    model: nn.Module, groups: list[Group]
) -> None:
    planner = planner_of(model, groups, config())
    budget = 0.6 * planner.whole
    plan, predicted = planner.plan(budget)
    assert predicted == pytest.approx(costs_of(model, groups).at(kept(groups, plan)))
    assert 0.85 * budget <= predicted <= budget * (1 + 1e-9)
    for group, scores in zip(groups, SCORER(model, groups), strict=True):
        gone = list(plan.removed.get(group.name, ()))
        left = [slot for slot in range(group.size) if slot not in gone]
        assert not gone or scores[gone].max() <= scores[left].min()
    again, _ = planner_of(model, groups, config()).plan(budget)
    assert again.removed == plan.removed


def test_floors_caps_and_alignment_hold(model: nn.Module, groups: list[Group]) -> None:
    prune = config(round_to=4, max_sparsity=0.5)
    planner = planner_of(model, groups, prune)
    plan, _ = planner.plan(planner.least())
    assert plan.removed
    for group, count in zip(groups, kept(groups, plan), strict=True):
        assert count == group.size or count % 4 == 0
        assert count >= group.size / 2


@pytest.mark.parametrize("target", ["latency=0.5", "latency=0.7"])
@pytest.mark.parametrize(
    "distort",
    [lambda ms: ms, lambda ms: 0.8 * ms, lambda ms: 0.5 * ms + 0.15, lambda ms: 0.4 * ms**1.3],
    ids=["as foretold", "scaled", "constant part", "bent"],
)
def test_the_budget_is_corrected_until_the_target_is_met(
    target: str, distort: Callable[[float], float], model: nn.Module, groups: list[Group]
) -> None:
    found = run(model, groups, target, distort)
    best = found.attempts[found.best]
    fraction = float(target.partition("=")[2])
    assert abs(best.result / best.parent / fraction - 1) <= 0.05
    misses = [abs(a.result / a.parent / fraction - 1) for a in found.attempts]
    assert misses[found.best] == min(misses)
    assert best.result == pytest.approx(runtime(model, groups, distort)(found.plan)[1])
    assert found == run(model, groups, target, distort)


def test_milliseconds_are_met_too(model: nn.Module, groups: list[Group]) -> None:
    found = run(model, groups, "latency=1.2ms", lambda ms: 1.1 * ms)
    assert found.attempts[found.best].result == pytest.approx(1.2, rel=0.05)


def test_slots_are_scored_once_for_all_corrections(model: nn.Module, groups: list[Group]) -> None:
    turns: list[int] = []

    def scorer(scored: nn.Module, chosen: Sequence[Group]) -> list[Tensor]:
        turns.append(sum(int((p == 0).all()) for p in scored.parameters()))
        return SCORER(scored, chosen)

    prune = config(rounds=3)
    planner = planner_of(model, groups, prune, scorer)
    measure = runtime(model, groups, lambda ms: ms**1.3)
    found = search(planner, prune.latency_target(), planner.whole, measure)
    assert len(found.attempts) > 1
    assert len(turns) == 3


def test_slots_of_an_earlier_round_go_before_those_that_are_left(
    model: nn.Module, groups: list[Group]
) -> None:
    """The second round scores the other way round; what the first took is taken all the same."""
    calls = itertools.count()

    def scorer(_model: nn.Module, chosen: Sequence[Group]) -> list[Tensor]:
        rising = [torch.arange(1.0, group.size + 1) for group in chosen]
        return rising if next(calls) == 0 else [scores.flip(0) for scores in rising]

    prune = config(rounds=2)
    planner = planner_of(model, groups, prune, scorer)
    budget = 0.4 * planner.whole
    first, _ = planner.plan(planner.whole - 0.5 * (planner.whole - budget))
    planner.rescore(budget)
    plan, _ = planner.plan(budget)
    for group in groups:
        early, late = first.removed.get(group.name, ()), plan.removed.get(group.name, ())
        assert early == tuple(range(len(early)))
        if len(late) > len(early):
            assert set(early) < set(late)
            assert group.size - 1 in late
        else:
            assert set(late) <= set(early)
    assert any(group.size - 1 in plan.removed.get(group.name, ()) for group in groups)


def test_what_cannot_be_reached_is_said_with_what_can(
    model: nn.Module, groups: list[Group]
) -> None:
    with pytest.raises(PruningError, match=r"cannot be reached.*the fastest model takes") as error:
        run(model, groups, "latency=0.1", max_sparsity=0.5)
    planner = planner_of(model, groups, config(max_sparsity=0.5))
    assert f"{planner.least():.2f} of {planner.whole:.2f} ms" in str(error.value)
    assert f"({planner.least() / planner.whole:.3f})" in str(error.value)
    with pytest.raises(PruningError, match=r"cannot be reached: .* predicted at least"):
        planner.plan(0.9 * planner.least())


def test_what_is_only_foretold_as_unreachable_is_tried(
    model: nn.Module, groups: list[Group]
) -> None:
    planner = planner_of(model, groups, config(max_sparsity=0.5))
    least = planner.least() / planner.whole
    target = f"latency={0.9 * least:.3f}"
    found = run(model, groups, target, lambda ms: ms**1.3, max_sparsity=0.5)
    best = found.attempts[found.best]
    assert best.result / best.parent == pytest.approx(0.9 * least, rel=0.05)


@pytest.mark.parametrize(
    "target",
    [
        "latency=0",
        "latency=1",
        "latency=abc",
        "latency=",
        "latency",
        "latency=-0.5",
        "latency=0ms",
        "latency=-3ms",
        "latency=infms",
        "latency=nan",
        "latency=12 s",
    ],
)
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(PruningError, match="target must be"):
        config(target)
    assert LatencyTarget.parse(target) is None


def test_fields_at_odds_with_a_latency_are_refused() -> None:
    with pytest.raises(PruningError, match="no scope isomorphic"):
        config(scope="isomorphic")
    with pytest.raises(PruningError, match="no per cost"):
        config(per="cost")
    assert config(importance="fisher").per == "none"
    assert bare(target="macs=0.5", importance="fisher").per == "memory"


def test_a_plan_without_measured_costs_is_refused(model: nn.Module, groups: list[Group]) -> None:
    with pytest.raises(PruningError, match="has to be measured"):
        plan_pruning(model, groups, config())


def test_the_outcome_says_what_the_figures_say(model: nn.Module, groups: list[Group]) -> None:
    found = run(model, groups, "latency=0.5")

    def record(parent: float, result: float) -> LatencyRecord:
        return LatencyRecord(
            runtime="abacus 1",
            threads=2,
            parent_ms=parent,
            result_ms=result,
            target=LatencyTarget.parse("latency=0.5"),
            attempts=found.attempts,
            best=found.best,
        )

    assert record(10, 5.2).met
    assert record(10, 5.2).outcome == (
        "latency=0.5 is met within 5%: 5.20 ms, 0.520 of its parent's 10.00 ms"
    )
    assert not record(10, 4.6).met
    assert record(10, 4.6).outcome.startswith("latency=0.5 is not met within 5%: 4.60 ms, 0.460")
    assert record(10, 5).setting == "abacus 1, 2 threads"
    rows = record(10, 5).rows()
    assert len(rows) == len(found.attempts)
    assert [row[0].endswith("(chosen)") for row in rows].index(True) == found.best
