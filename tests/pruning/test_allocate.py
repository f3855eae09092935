"""Budgets: ratio, alignment, floor, cap, rounds; and plans as files."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import SLIM_SPECS, ResNet, bare, enliven, plan_of
from yolox.models import build_model
from yolox.pruning import (
    Group,
    Member,
    PruneConfig,
    PruningError,
    PruningPlan,
    apply_plan,
    mask_plan,
    plan_pruning,
    threshold_hint,
    trace_groups,
)
from yolox.pruning.allocate import Costs, allocate
from yolox.pruning.cost import CostModel, LayerCost
from yolox.pruning.plan import make_plan
from yolox.pruning.select import select_groups
from yolox.utils.model_utils import count_macs, count_params


def removed_fraction(groups: Sequence[Group], removed: Mapping[str, Sequence[int]]) -> float:
    """Fraction of the groups' output channels that goes."""
    gone = sum(len(removed.get(group.name, ())) * group.channels_per_slot for group in groups)
    return gone / sum(group.size * group.channels_per_slot for group in groups)


def group(name: str, size: int, producers: int = 1) -> Group:
    """A group of so many slots, made by so many convolutions."""
    index = np.arange(size)[:, None]
    members = [
        Member(name=f"{name}.{i}", axis="out", index=index, produces=True) for i in range(producers)
    ]
    return Group(name=name, size=size, members=tuple(members))


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Group], list[Tensor], PruneConfig]:
    shapes = draw(
        st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=6)
    )
    groups = [group(f"g{i}", size, producers) for i, (size, producers) in enumerate(shapes)]
    # Few distinct values: ties are the hard case.
    value = st.sampled_from([0.0, 0.1, 0.3, 1.0, 7.0]) | st.floats(0, 1e6, width=32)
    scores = [torch.tensor(draw(st.lists(value, min_size=g.size, max_size=g.size))) for g in groups]
    mode = draw(st.sampled_from(["global", "layer"]))
    config = bare(
        mode=mode,
        layers=("*",) if mode == "layer" else (),
        ch_sparsity=draw(st.floats(0.02, 0.98)),
        round_to=draw(st.sampled_from([1, 2, 4, 8])),
        min_channels=draw(st.sampled_from([1, 2, 5, 16])),
        max_sparsity=draw(st.floats(0.05, 0.95)),
        importance="l1",
    )
    return groups, scores, config


def blocks(size: int, config: PruneConfig) -> list[int]:
    """Sizes of the steps in which a group can shrink; a check in words of its own."""
    allowed = [
        gone
        for gone in range(size)
        if gone == 0
        or (
            (size - gone) % config.round_to == 0
            and size - gone >= config.min_channels
            and gone <= config.max_sparsity * size + 1e-6
        )
    ]
    return [b - a for a, b in itertools.pairwise(allowed)]


@given(problems())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_limits_are_kept_and_the_ratio_met(
    problem: tuple[list[Group], list[Tensor], PruneConfig],
) -> None:
    groups, scores, config = problem
    most = [float(sum(blocks(g.size, config))) for g in groups]
    if config.mode == "layer":  # what one group could lose beyond its share helps no other
        most = [min(m, config.ch_sparsity * g.size) for m, g in zip(most, groups, strict=True)]
    reachable = sum(m * g.channels_per_slot for m, g in zip(most, groups, strict=True))
    total = sum(g.size * g.channels_per_slot for g in groups)
    try:
        removed = allocate(groups, scores, config)
    except PruningError:
        assert reachable / total < config.ch_sparsity
        return
    for g, s in zip(groups, scores, strict=True):
        slots = removed.get(g.name, ())
        assert list(slots) == sorted(set(slots))
        assert all(0 <= slot < g.size for slot in slots)
        left = g.size - len(slots)
        if slots:
            assert left % config.round_to == 0
            assert left >= config.min_channels
            assert len(slots) <= config.max_sparsity * g.size + 1e-6
            # The least important slots go.
            kept = sorted(set(range(g.size)) - set(slots))
            assert s[list(slots)].max() <= s[kept].min()
    if config.mode == "global":
        costs = [b * g.channels_per_slot for g in groups for b in blocks(g.size, config)]
        miss = abs(removed_fraction(groups, removed) - config.ch_sparsity) * total
        assert miss <= max(costs, default=0) + 1e-6
    else:
        for g in groups:
            steps = [0, *itertools.accumulate(blocks(g.size, config))]
            best = min(abs(step - config.ch_sparsity * g.size) for step in steps)
            gone = len(removed.get(g.name, ()))
            assert abs(gone - config.ch_sparsity * g.size) == pytest.approx(best)


@given(problems(), st.integers(2, 6))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_a_round_removed_stays_removed(
    problem: tuple[list[Group], list[Tensor], PruneConfig], rounds: int
) -> None:
    groups, scores, config = problem
    removed: dict[str, tuple[int, ...]] = {}
    for step in range(1, rounds + 1):
        rescored = [torch.roll(s, step) for s in scores]
        try:
            after = allocate(groups, rescored, config, progress=step / rounds, gone=removed)
        except PruningError:
            return
        for name, slots in removed.items():
            assert set(slots) <= set(after.get(name, ())), name
        removed = after


def test_a_large_block_of_an_earlier_round_does_not_crowd_out_a_small_one() -> None:
    """Earlier rounds took 1 of small, then 8 of large; the next is to have 6 gone in all."""
    groups = [group("large", 16), group("small", 9), group("rest", 75)]
    config = bare(ch_sparsity=0.06, round_to=8)
    gone = {"large": tuple(range(8)), "small": (0,)}
    scores = [torch.ones(16), torch.ones(9), torch.full((75,), 9.0)]
    assert allocate(groups, scores, config, gone=gone) == gone


def test_global_ranks_across_groups_and_counts_every_conv_of_a_group() -> None:
    groups = [group("single", 10), group("stage", 10, producers=4)]
    scores = [torch.arange(10.0) + 0.5, torch.arange(10.0)]
    removed = allocate(groups, scores, bare(ch_sparsity=0.2))
    assert removed == {"single": (0, 1), "stage": (0, 1)}


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "global"},
        {"mode": "layer", "layers": ("*",)},
        {"mode": "conv", "layers": ("a.0",)},
    ],
)
def test_a_ratio_out_of_reach_names_the_nearest(options: dict) -> None:
    groups = [group("a", 100)]
    config = bare(ch_sparsity=0.8, max_sparsity=0.5, **options)
    with pytest.raises(PruningError, match=r"cannot be reached: at most 0\.500"):
        allocate(groups, [torch.arange(100.0)], config)


def test_a_ratio_half_of_which_is_out_of_reach_is_refused_though_blocks_are_large() -> None:
    config = bare(ch_sparsity=0.95, round_to=8, max_sparsity=0.5)
    with pytest.raises(PruningError, match=r"cannot be reached: at most 0\.500"):
        allocate([group("a", 16)], [torch.arange(16.0)], config)


def test_nothing_to_remove_is_an_error() -> None:
    groups = [group("a", 8)]
    config = bare(mode="layer", layers=("a",), ch_sparsity=0.01)
    removed = allocate(groups, [torch.arange(8.0)], config)
    assert removed == {}
    with pytest.raises(PruningError, match=r"nothing would be removed: .*smallest group: 8"):
        make_plan(groups, removed, config)


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_small_ratio_on_a_whole_model_in_rounds(rounds: int) -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    groups = trace_groups(model, torch.rand(1, 3, 64, 64))
    config = bare(ch_sparsity=0.4, rounds=rounds, round_to=4, importance="l1")
    plan = plan_pruning(model, groups, config)
    assert removed_fraction(groups, plan.removed) == pytest.approx(0.4, abs=0.005)
    assert all((plan.sizes[n] - len(gone)) % 4 == 0 for n, gone in plan.removed.items())
    assert plan.config["rounds"] == rounds


# --- targets, scopes and prices


@pytest.fixture(scope="module")
def nano() -> tuple[nn.Module, list[Group]]:
    model = enliven(build_model(SPECS["yolox-nano"])).eval()
    return model, trace_groups(model, torch.rand(1, 3, 64, 64))


def left_of(model: nn.Module, plan: PruningPlan, groups: list[Group], kind: str) -> float:
    """Fraction of the parameters or MACs that a plan leaves, counted on the pruned model."""
    small = apply_plan(model, groups, plan)
    if kind == "params":
        return count_params(small) / count_params(model)
    x = torch.rand(1, 3, 64, 64)
    return count_macs(small, x)[""] / count_macs(model, x)[""]


@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize("fraction", [0.5, 0.8])
@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
def test_a_target_is_met_in_every_scope(
    nano: tuple[nn.Module, list[Group]], scope: str, fraction: float, kind: str
) -> None:
    model, groups = nano
    config = bare(
        target=f"{kind}={fraction}", scope=scope, importance="l1", rounds=1, max_sparsity=0.95
    )
    plan = plan_pruning(model, groups, config, count_input=torch.rand(1, 3, 64, 64))
    assert fraction - 0.01 < left_of(model, plan, groups, kind) <= fraction
    if scope == "global":
        return
    pools: dict[str, list[Group]] = {}
    for g in groups:
        pools.setdefault(g.name if scope == "uniform" else g.kind, []).append(g)
    assert 1 < len(pools) <= len(groups)
    shares = []
    for pool in pools.values():
        size = sum(g.size for g in pool)
        gone = sum(len(plan.removed.get(g.name, ())) for g in pool)
        shares.append((gone - 1.01) / size)
        shares.append((gone + 1.01) / size)
    # One fraction is within a slot of every pool's own.
    assert max(shares[0::2]) <= min(shares[1::2])


@pytest.mark.parametrize("kind", ["params", "macs"])
@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_a_target_is_met_in_blocks_of_eight(
    nano: tuple[nn.Module, list[Group]], kind: str, fraction: float
) -> None:
    model, groups = nano
    config = bare(target=f"{kind}={fraction}", round_to=8, importance="l1", rounds=2)
    plan = plan_pruning(model, groups, config, count_input=torch.rand(1, 3, 64, 64))
    assert all((plan.sizes[n] - len(gone)) % 8 == 0 for n, gone in plan.removed.items())
    assert fraction - 0.015 < left_of(model, plan, groups, kind) <= fraction


def test_isomorphic_ranks_within_a_kind_and_takes_the_same_fraction_of_each() -> None:
    groups = [
        dataclasses.replace(group(name, size), kind=kind)
        for name, size, kind in (("a", 4, "small"), ("b", 4, "small"), ("c", 8, "large"))
    ]
    # A kind whose scores are all larger than the other's is not spared.
    scores = [torch.arange(4.0) + 10, torch.arange(4.0), torch.arange(8.0) + 100]
    config = bare(ch_sparsity=0.5, scope="isomorphic", max_sparsity=0.99)
    assert allocate(groups, scores, config) == {"a": (0,), "b": (0, 1, 2), "c": (0, 1, 2, 3)}
    uniform = bare(target="params=0.5", scope="uniform")
    costs = Costs(budget={g.producers[0].name: layer(g.size, g.size) for g in groups})
    assert allocate(groups, scores, uniform, costs=costs) == {
        "a": (0, 1),
        "b": (0, 1),
        "c": (0, 1, 2, 3),
    }


def layer(cost: float, outputs: int) -> LayerCost:
    """A layer that shrinks with its outputs alone."""
    return LayerCost(cost=cost, outputs=outputs, inputs=None)


@pytest.mark.parametrize(
    ("per", "scores", "memory", "expected"),
    [
        # 440 in all, 10 a slot of a and 100 a slot of b; 220 have to go, and 3 slots at most each.
        # a goes first, three slots of it; two of b overshoot by 10, so one of a comes back.
        ("none", (1, 2), (1, 1), {"a": (0, 1), "b": (0, 1)}),
        ("none", (2, 1), (1, 1), {"b": (0, 1, 2)}),
        # 1 / 10 against 2 / 100.
        ("cost", (1, 2), (1, 1), {"b": (0, 1, 2)}),
        ("cost", (1, 20), (1, 1), {"a": (0, 1), "b": (0, 1)}),
        # 1 / 1 against 2 / 4; then 2 / 4 against 1 / 1.
        ("memory", (1, 2), (4, 16), {"b": (0, 1, 2)}),
        ("memory", (2, 1), (16, 4), {"a": (0, 1), "b": (0, 1)}),
    ],
)
def test_prices_by_hand(
    per: str, scores: tuple[int, int], memory: tuple[int, int], expected: dict
) -> None:
    groups = [group("a", 4), group("b", 4)]
    costs = Costs(
        budget={"a.0": layer(40, 4), "b.0": layer(400, 4)},
        price={"a.0": layer(memory[0], 4), "b.0": layer(memory[1], 4)} if per == "memory" else None,
    )
    config = bare(target="params=0.5", per=per)
    values = [torch.full((4,), float(score)) for score in scores]
    assert allocate(groups, values, config, costs=costs) == expected


def test_a_price_follows_what_is_left() -> None:
    """The last slots of a layer save less once its reader has shrunk, so their price rises."""
    index = np.arange(4)[:, None]
    made = Member(name="a", axis="out", index=index, produces=True)
    read = Member(name="b", axis="in", index=index, produces=False)
    own = Member(name="b", axis="out", index=index, produces=True)
    groups = [
        Group(name="a", size=4, members=(made, read)),
        Group(name="b", size=4, members=(own,)),
    ]
    costs = Costs(
        budget={"a": layer(0, 4), "b": LayerCost(cost=160, outputs=4, inputs=4)},
    )
    # A slot of either saves 40 at first. Once two of b are gone, one of a saves but 20: 1 / 20 is
    # dearer than 1.9 / 40, the price of b's third, which would have lost to 1 / 40.
    scores = [torch.tensor([1.0, 9, 9, 9]), torch.tensor([0.1, 0.1, 1.9, 9])]
    config = bare(target="params=0.3", per="cost", max_sparsity=0.9)
    assert allocate(groups, scores, config, costs=costs) == {"b": (0, 1, 2)}


@st.composite
def cost_problems(
    draw: st.DrawFn,
) -> tuple[list[Group], list[Tensor], PruneConfig, dict[str, LayerCost]]:
    """A chain of layers, each of which reads the one before."""
    sizes = draw(st.lists(st.integers(2, 40), min_size=1, max_size=5))
    groups, costs = [], {}
    for number, size in enumerate(sizes):
        index = np.arange(size)[:, None]
        members = [Member(name=f"g{number}", axis="out", index=index, produces=True)]
        if number + 1 < len(sizes):
            members.append(Member(name=f"g{number + 1}", axis="in", index=index, produces=False))
        groups.append(Group(name=f"g{number}", size=size, members=tuple(members), kind=f"{size}"))
        inputs = sizes[number - 1] if number else None
        cost = draw(st.integers(1, 1000))
        costs[f"g{number}"] = LayerCost(cost=cost, outputs=size, inputs=inputs)
    value = st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 100, width=32)
    scores = [torch.tensor(draw(st.lists(value, min_size=n, max_size=n))) for n in sizes]
    scope = draw(st.sampled_from(["global", "uniform", "isomorphic"]))
    config = bare(
        target=f"macs={draw(st.floats(0.1, 0.95))}",
        scope=scope,
        per=draw(st.sampled_from(["none", "cost"])) if scope == "global" else None,
        round_to=draw(st.sampled_from([1, 2, 4, 8])),
        max_sparsity=draw(st.floats(0.3, 0.95)),
        importance="l1",
    )
    return groups, scores, config, costs


@given(cost_problems())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_target_is_never_missed_nor_overshot_by_a_block_that_could_stay(
    problem: tuple[list[Group], list[Tensor], PruneConfig, dict[str, LayerCost]],
) -> None:
    groups, scores, config, costs = problem

    def left(counts: Sequence[int]) -> float:
        model = CostModel(groups, costs)
        saved = sum(model.remove(number, count) for number, count in enumerate(counts))
        return 1 - saved / model.total

    steps = [[0, *itertools.accumulate(blocks(g.size, config))] for g in groups]
    target = config.target_fraction()
    least = left([allowed[-1] for allowed in steps])
    if least > target + 1e-6:
        with pytest.raises(PruningError, match=f"so {least:.3f} is the least left"):
            allocate(groups, scores, config, costs=Costs(budget=costs))
        return
    removed = allocate(groups, scores, config, costs=Costs(budget=costs))
    counts = [len(removed.get(g.name, ())) for g in groups]
    assert left(counts) <= target + 1e-6
    if left(counts) >= target - 0.01 - 1e-6:
        return
    for number, allowed in enumerate(steps):
        if counts[number]:
            fewer = list(counts)
            fewer[number] = allowed[allowed.index(counts[number]) - 1]
            assert left(fewer) > target - 1e-6


def test_a_target_without_costs_is_an_error() -> None:
    with pytest.raises(PruningError, match=r"target macs=0\.5 needs the costs"):
        allocate([group("a", 8)], [torch.arange(8.0)], bare(target="macs=0.5"))
    with pytest.raises(PruningError, match="per memory needs the activations"):
        allocate([group("a", 8)], [torch.arange(8.0)], bare(per="memory"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target": "macs=0.5"}, "a target in MACs"), ({"per": "memory"}, "a price in memory")],
)
def test_costs_that_depend_on_the_input_need_one(
    nano: tuple[nn.Module, list[Group]], options: dict, message: str
) -> None:
    config = bare(importance="l1", **options)
    with pytest.raises(PruningError, match=f"{message} needs count_input"):
        plan_pruning(*nano, config)


# --- the hint before the cut


def hint_groups() -> tuple[list[Group], list[Tensor]]:
    """Four slots of one convolution each, and four of two each: 12 channels."""
    groups = [group("a", 4), group("b", 4, producers=2)]
    return groups, [torch.tensor([3.0, 1, 4, 2]), torch.tensor([10.0, 40, 20, 30])]


def test_the_hint_by_hand() -> None:
    groups, scores = hint_groups()
    hint = threshold_hint(groups, scores, bare(ch_sparsity=0.5, max_sparsity=0.75))
    assert hint.threshold == 4  # a's highest: at 4 it keeps that one slot
    assert hint.ratio == pytest.approx(3 / 12)
    assert hint.limiting == (("a", 4.0), ("b", 40.0))
    # Six channels by one threshold: all four of a, and one slot of b.
    assert hint.emptied == ("a",)
    assert hint.reachable == pytest.approx((3 + 3 * 2) / 12)
    assert (hint.asked, hint.max_sparsity) == (0.5, 0.75)
    first, second = hint.lines()
    assert "empties no layer is 4: 25% of the channels; limited by a (up to 4)" in first
    assert "50% of the channels would empty 1 (a)" in second
    assert "up to 75% of the channels can go" in second


def test_the_hint_sets_dead_layers_aside() -> None:
    """After sparsity training a layer may be at 0 as a whole, which no threshold spares."""
    groups, scores = hint_groups()
    groups.append(group("c", 4))
    scores = [torch.tensor([3.0, 0, 4, 0]), scores[1], torch.zeros(4)]
    hint = threshold_hint(groups, scores, bare(ch_sparsity=0.2, max_sparsity=0.75))
    assert hint.threshold == 4
    assert hint.ratio == pytest.approx((3 + 3) / 16)  # of a, and of c what the cap lets go
    assert hint.limiting == (("a", 4.0), ("b", 40.0))
    assert hint.dead == ("c",)
    assert hint.zero == pytest.approx(6 / 16)
    zero, dead, threshold, _ = hint.lines()
    assert zero == "37.5% of the channels score 0"
    assert dead.startswith("layers whose every channel scores 0: 1 (c); with `max_sparsity` 0.75")
    assert "empties no layer is 4: 38% of the channels" in threshold
    # A layer of which one slot is left: the cap is a quarter.
    low = threshold_hint([group("d", 8)], [torch.tensor([0.0] * 7 + [1])], bare())
    assert low.ratio == low.reachable == 7 / 8
    low = threshold_hint([group("d", 8)], [torch.tensor([0.0] * 7 + [1])], bare(max_sparsity=0.5))
    assert low.ratio == low.reachable == 4 / 8
    nothing = threshold_hint(groups, [torch.zeros(4)] * 3, bare(ch_sparsity=0.2))
    assert (nothing.threshold, nothing.ratio, nothing.zero) == (0, pytest.approx(12 / 16), 1)
    assert "would empty 3 (a, b, c)" in nothing.lines()[2]


def test_the_hint_says_no_more_than_is_so() -> None:
    groups, scores = hint_groups()
    small = threshold_hint(groups, scores, bare(ch_sparsity=0.2))
    assert small.emptied == ()
    assert len(small.lines()) == 1
    target = threshold_hint(groups, scores, bare(target="params=0.5"))
    assert target.asked is None
    assert len(target.lines()) == 1
    by_layer = threshold_hint(groups, scores, bare(mode="layer", layer_sparsity={"a": 0.25}))
    assert by_layer.asked is None
    assert "of the channels would empty" not in " ".join(by_layer.lines())


def test_the_hint_knows_floors_and_blocks() -> None:
    groups, scores = hint_groups()
    for options, gone in (
        ({"max_sparsity": 0.5}, 2),
        ({"min_channels": 3}, 1),
        ({"round_to": 4}, 0),
        ({"round_to": 2}, 2),
    ):
        hint = threshold_hint(groups, scores, bare(**options))
        assert hint.reachable == pytest.approx(gone * 3 / 12), options


def test_a_layer_whose_last_channel_the_ratio_needs_counts_as_emptied() -> None:
    """A third of 12 channels is just the four of a."""
    groups, scores = hint_groups()
    assert threshold_hint(groups, scores, bare(ch_sparsity=1 / 3)).emptied == ("a",)


# --- which layers


@pytest.fixture(scope="module")
def nano_groups() -> list[Group]:
    return trace_groups(build_model(SPECS["yolox-nano"]), torch.rand(1, 3, 64, 64))


def selected(groups: list[Group], mode: str, *layers: str) -> list[str]:
    return [g.name for g in select_groups(groups, bare(mode=mode, layers=layers))]


def test_a_conv_is_named_with_or_without_its_unit(nano_groups: list[Group]) -> None:
    for name in ("backbone.lateral_conv0", "backbone.lateral_conv0.conv"):
        assert selected(nano_groups, "conv", name) == ["backbone.lateral_conv0.conv"]


def test_convs_of_one_group_select_it_once(nano_groups: list[Group]) -> None:
    stage = "backbone.backbone.dark3.1"
    names = (f"{stage}.conv1", f"{stage}.m.0.conv2.pconv", f"{stage}.m.2.conv2.pconv")
    assert selected(nano_groups, "conv", *names) == [f"{stage}.conv1.conv"]


def test_layers_are_named_by_prefix_or_pattern() -> None:
    groups = trace_groups(build_model(SLIM_SPECS["yolox-s"]), torch.rand(1, 3, 64, 64))
    by_prefix = selected(groups, "layer", "head.cls_convs")
    assert by_prefix == selected(groups, "layer", "head.cls_convs.*")
    assert len(by_prefix) == 6
    assert all(name.startswith("head.cls_convs.") for name in by_prefix)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("conv", "backbone.lateral_conv1"),
        ("conv", "head.cls_convs"),
        ("layer", "backbone.lateral_conv1*"),
        ("conv", "head.cls_preds.0"),
    ],
)
def test_a_name_that_matches_nothing_lists_the_nearest(
    nano_groups: list[Group], mode: str, wanted: str
) -> None:
    with pytest.raises(PruningError, match="matches no prunable convolution; nearest: ") as caught:
        selected(nano_groups, mode, wanted)
    assert repr(wanted) in str(caught.value)
    if "lateral" in wanted:
        assert "backbone.lateral_conv0.conv" in str(caught.value)


# --- configuration


def test_all_problems_of_a_configuration_are_told_at_once() -> None:
    with pytest.raises(PruningError) as caught:
        bare(
            mode="blocks",
            ch_sparsity=1.0,
            max_sparsity=0.0,
            importance="magic",
            rounds=0,
            round_to=0,
            min_channels=-1,
        )
    for name in (
        "mode",
        "ch_sparsity",
        "max_sparsity",
        "importance",
        "rounds",
        "round_to",
        "min_channels",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_ch_sparsity_is_between_0_and_1(value: float) -> None:
    with pytest.raises(PruningError, match="ch_sparsity must be between"):
        bare(ch_sparsity=value)


def test_layers_go_with_their_modes() -> None:
    with pytest.raises(PruningError, match="mode conv needs `layers`"):
        bare(mode="conv")
    with pytest.raises(PruningError, match="mode global takes no layers"):
        bare(layers=("head",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_sparsity": {"*": 0.5}, "target": "macs=0.5"}, "goes without target and layers"),
        (
            {"layer_sparsity": {"*": 0.5}, "mode": "layer", "layers": ("*",)},
            "goes without target and layers",
        ),
        ({"layer_sparsity": {"*": 0.5}, "scope": "global"}, "no scope global"),
        pytest.param(
            {"layer_sparsity": {"*": 0.5}, "per": "memory"},
            "no per memory",
        ),
        ({"layer_sparsity": {"*": 1.0}}, r"layer_sparsity must be .*: 1\.0 for '\*'"),
        ({"layer_sparsity": {"*": -0.1}}, "layer_sparsity must be"),
        ({"layer_sparsity": {"*": float("nan")}}, "layer_sparsity must be"),
        ({"scope": "uniform", "per": "cost"}, "no per cost"),
        ({"scope": "isomorphic", "per": "memory"}, "no per memory"),
        pytest.param(
            {"mode": "layer", "layers": ("*",), "per": "cost"},
            "no per cost",
        ),
        ({"target": "latency=fast"}, "target must be params=FRACTION, macs=FRACTION"),
        ({"target": "macs=1"}, "target must be"),
        ({"target": "macs=half"}, "target must be"),
        ({"target": "macs"}, "target must be"),
        ({"target": "macs=nan"}, "target must be"),
        ({"scope": "local"}, "scope must be one of uniform, global, isomorphic"),
        ({"aggregate": "median"}, "aggregate must be one of sum, mean, max"),
        ({"normalize": "sum"}, "normalize must be one of none, mean, max"),
        ({"per": "latency"}, "per must be one of none, cost, memory"),
        ({"reconstruct": -1}, "reconstruct must be at least 0"),
        ({"bn_recalibrate": -1}, "bn_recalibrate must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        bare(**options)


def test_contradictions_are_told_with_the_ranges() -> None:
    with pytest.raises(PruningError) as caught:
        bare(
            layers=("head",),
            layer_sparsity={"*": 2.0},
            scope="isomorphic",
            per="cost",
            reconstruct=-1,
        )
    text = str(caught.value)
    for part in (
        "layer_sparsity must be",
        "goes without target and layers",
        "no scope isomorphic",
        "mode global takes no layers",
        "no per cost",
        "reconstruct must be",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("options", "scope", "scale", "per"),
    [
        ({}, "global", "none", "none"),
        ({"importance": "l1"}, "global", "mean", "none"),
        ({"importance": "fisher"}, "global", "none", "memory"),
        ({"importance": "fisher", "scope": "isomorphic"}, "isomorphic", "none", "none"),
        ({"importance": "fisher", "per": "cost"}, "global", "none", "cost"),
        ({"mode": "layer", "layers": ("*",)}, "uniform", "none", "none"),
        ({"mode": "layer", "layers": ("*",), "target": "macs=0.5"}, "global", "none", "none"),
        ({"layer_sparsity": {"*": 0.5}, "importance": "fisher"}, "uniform", "none", "none"),
    ],
)
def test_what_is_left_open_is_written_out(options: dict, scope: str, scale: str, per: str) -> None:
    config = bare(**options)
    assert (config.scope, config.normalize, config.per) == (scope, scale, per)
    assert bare(**{k: _frozen(v) for k, v in config.to_dict().items()}) == config


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


# --- plans


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, list[Group], PruningPlan]:
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    return model, groups, plan_pruning(model, groups, bare(importance="l1", round_to=2))


def test_a_plan_survives_its_file(
    tmp_path: Path, resnet: tuple[nn.Module, list[Group], PruningPlan]
) -> None:
    model, groups, plan = resnet
    plan.save(tmp_path / "plan.json")
    again = PruningPlan.load(tmp_path / "plan.json")
    assert again == plan
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(apply_plan(model, groups, again)(x), apply_plan(model, groups, plan)(x))


def test_a_plan_edited_by_hand_is_followed(
    tmp_path: Path, resnet: tuple[nn.Module, list[Group], PruningPlan]
) -> None:
    model, groups, plan = resnet
    plan.save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    for entry in content["groups"]:
        entry["remove"] = [3, 1] if entry["name"] == "stem.0" else []
    (tmp_path / "plan.json").write_text(json.dumps(content))
    small = apply_plan(model, groups, PruningPlan.load(tmp_path / "plan.json"))
    kept = [0, 2, 4, 5, 6, 7]
    assert torch.equal(small.stem[0].weight, model.stem[0].weight[kept])
    assert torch.equal(small.stages[1].conv1.weight, model.stages[1].conv1.weight[:, kept])


@pytest.mark.parametrize("act", [apply_plan, mask_plan])
def test_a_plan_of_another_model_is_refused(
    act, resnet: tuple[nn.Module, list[Group], PruningPlan], nano_groups: list[Group]
) -> None:
    model, groups, plan = resnet
    with pytest.raises(PruningError, match=r"made for another model: 7\d groups differ, such as "):
        plan.check(nano_groups)
    narrower = PruningPlan(removed=plan.removed, sizes=plan.sizes | {"stem.0": 12})
    with pytest.raises(PruningError, match=r"stem\.0 .12 in the plan, 8 in the model"):
        act(model, groups, narrower)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({}, "removes nothing"),
        ({"stem.0": ()}, "removes nothing"),
        ({"stem.0": tuple(range(8))}, "empties stem.0"),
        ({"stem.0": (8,)}, "slots it does not have"),
        ({"stem.0": (-1,)}, "slots it does not have"),
        ({"nowhere": (0,)}, "nowhere"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(
    removed: dict, message: str, resnet: tuple[nn.Module, list[Group], PruningPlan]
) -> None:
    model, groups, _ = resnet
    with pytest.raises(PruningError, match=message):
        apply_plan(model, groups, plan_of(groups, removed))


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"format": "other"}', '{"format": "yolox-pruning-plan"}', "not json", ""]
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PruningError, match="plan"):
        PruningPlan.load(tmp_path / "plan.json")


def test_a_plan_file_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="plan"):
        PruningPlan.load(tmp_path / "plan.json")
