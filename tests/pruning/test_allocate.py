"""Budgets: ratio, alignment, floor, cap, rounds; and plans as files."""

from __future__ import annotations

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
from tests.pruning.helpers import SLIM_SPECS, ResNet, enliven, plan_of
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
    trace_groups,
)
from yolox.pruning.allocate import allocate
from yolox.pruning.plan import make_plan
from yolox.pruning.select import select_groups


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
    config = PruneConfig(
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
    reachable = sum(sum(blocks(g.size, config)) * g.channels_per_slot for g in groups)
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
    config = PruneConfig(ch_sparsity=0.06, round_to=8)
    gone = {"large": tuple(range(8)), "small": (0,)}
    scores = [torch.ones(16), torch.ones(9), torch.full((75,), 9.0)]
    assert allocate(groups, scores, config, gone=gone) == gone


def test_global_ranks_across_groups_and_counts_every_conv_of_a_group() -> None:
    groups = [group("single", 10), group("stage", 10, producers=4)]
    scores = [torch.arange(10.0) + 0.5, torch.arange(10.0)]
    removed = allocate(groups, scores, PruneConfig(ch_sparsity=0.2))
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
    config = PruneConfig(ch_sparsity=0.8, max_sparsity=0.5, **options)
    with pytest.raises(PruningError, match=r"cannot be reached: at most 0\.500"):
        allocate(groups, [torch.arange(100.0)], config)


def test_a_ratio_half_of_which_is_out_of_reach_is_refused_though_blocks_are_large() -> None:
    config = PruneConfig(ch_sparsity=0.95, round_to=8, max_sparsity=0.5)
    with pytest.raises(PruningError, match=r"cannot be reached: at most 0\.500"):
        allocate([group("a", 16)], [torch.arange(16.0)], config)


def test_nothing_to_remove_is_an_error() -> None:
    groups = [group("a", 8)]
    config = PruneConfig(mode="layer", layers=("a",), ch_sparsity=0.01)
    removed = allocate(groups, [torch.arange(8.0)], config)
    assert removed == {}
    with pytest.raises(PruningError, match=r"nothing would be removed: .*smallest group: 8"):
        make_plan(groups, removed, config)


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_small_ratio_on_a_whole_model_in_rounds(rounds: int) -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    groups = trace_groups(model, torch.rand(1, 3, 64, 64))
    config = PruneConfig(ch_sparsity=0.4, rounds=rounds, round_to=4, importance="l1")
    plan = plan_pruning(model, groups, config)
    assert removed_fraction(groups, plan.removed) == pytest.approx(0.4, abs=0.005)
    assert all((plan.sizes[n] - len(gone)) % 4 == 0 for n, gone in plan.removed.items())
    assert plan.config["rounds"] == rounds


# --- which layers


@pytest.fixture(scope="module")
def nano_groups() -> list[Group]:
    return trace_groups(build_model(SPECS["yolox-nano"]), torch.rand(1, 3, 64, 64))


def selected(groups: list[Group], mode: str, *layers: str) -> list[str]:
    return [g.name for g in select_groups(groups, PruneConfig(mode=mode, layers=layers))]


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
        PruneConfig(
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
        PruneConfig(ch_sparsity=value)


def test_layers_go_with_their_modes() -> None:
    with pytest.raises(PruningError, match="mode conv needs layers"):
        PruneConfig(mode="conv")
    with pytest.raises(PruningError, match="mode global takes no layers"):
        PruneConfig(layers=("head",))


# --- plans


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, list[Group], PruningPlan]:
    model = enliven(ResNet()).eval()
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    return model, groups, plan_pruning(model, groups, PruneConfig(importance="l1", round_to=2))


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
