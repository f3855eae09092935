"""Which layers a config speaks of, and the ratio that each of them is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.pruning.helpers import SLIM_SPECS, ResNet, bare, enliven
from yolox.models import build_model
from yolox.pruning import Group, PruningError, plan_pruning, trace_groups
from yolox.pruning.select import group_ratios, select_groups

STAGE = "backbone.backbone.dark3.1"  # conv1 and each m.*.conv2 of it are tied by residual adds


@pytest.fixture(scope="module")
def slim() -> tuple[nn.Module, list[Group]]:
    model = enliven(build_model(SLIM_SPECS["yolox-s"])).eval()
    return model, trace_groups(model, torch.rand(1, 3, 64, 64))


@pytest.fixture(scope="module")
def groups(slim: tuple[nn.Module, list[Group]]) -> list[Group]:
    return slim[1]


def ratios(groups: list[Group], **patterns: float) -> dict[str, float]:
    """Ratio of every selected group; ``a__b`` stands for ``a.b``, ``X`` for ``*``."""
    spelled = {name.replace("__", ".").replace("X", "*"): r for name, r in patterns.items()}
    config = bare(layer_sparsity=spelled)
    chosen = select_groups(groups, config)
    return {g.name: r for g, r in zip(chosen, group_ratios(chosen, config), strict=True)}


def test_a_pattern_gives_its_layers_a_ratio_and_leaves_others_out(groups: list[Group]) -> None:
    found = ratios(groups, head__cls_convs=0.3, head__stems__1=0.6)
    assert found.pop("head.stems.1.conv") == 0.6
    assert set(found.values()) == {0.3}
    assert len(found) == 6
    assert all(name.startswith("head.cls_convs.") for name in found)


def test_the_last_pattern_that_matches_wins(groups: list[Group]) -> None:
    name = "head.stems.0.conv"
    assert ratios(groups, X=0.5, head__X=0.2)[name] == 0.2
    assert ratios(groups, head__X=0.2, X=0.5)[name] == 0.5
    spared = ratios(groups, X=0.5, head__stems=0.0)
    assert {spared[f"head.stems.{i}.conv"] for i in range(3)} == {0.0}
    assert spared["head.cls_convs.0.0.conv"] == 0.5


def test_coupled_layers_get_the_lowest_of_their_ratios(groups: list[Group]) -> None:
    config = bare(
        layer_sparsity={
            f"{STAGE}.conv1": 0.5,
            f"{STAGE}.m.0.conv2": 0.25,
            f"{STAGE}.m.1.conv2": 0.4,
        }
    )
    chosen = select_groups(groups, config)
    assert [group.name for group in chosen] == [f"{STAGE}.conv1.conv"]
    assert group_ratios(chosen, config) == [0.25]


def test_without_patterns_every_group_has_the_same_ratio(groups: list[Group]) -> None:
    config = bare(mode="layer", layers=("head",), ch_sparsity=0.3)
    assert group_ratios(groups[:5], config) == [0.3] * 5


def test_layer_ratios_are_carried_out() -> None:
    model = enliven(ResNet())
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    config = bare(
        layer_sparsity={"*": 0.5, "stages.0*": 0.25, "stages.1.conv1": 0}, importance="l1"
    )
    plan = plan_pruning(model, groups, config)
    # The stem shares a stage with stages.0.conv2, so it gets 0.25 of 8 too.
    counts = {group.name: len(plan.removed.get(group.name, ())) for group in groups}
    assert counts == {
        "stem.0": 2,
        "stages.0.conv1": 2,
        "stages.1.conv1": 0,
        "stages.1.conv2": 8,
        "stages.2.conv1": 8,
    }


def test_an_ignored_layer_spares_its_whole_group(groups: list[Group]) -> None:
    def names(*ignore: str) -> list[str]:
        return [g.name for g in select_groups(groups, bare(ignore=ignore))]

    everything = names()
    assert everything == [group.name for group in groups]
    assert set(everything) - set(names(f"{STAGE}.m.0.conv2")) == {f"{STAGE}.conv1.conv"}
    left = names("head", "*.lateral_conv0*")
    assert "backbone.lateral_conv0.conv" in set(everything) - set(left)
    assert not any(name.startswith("head.") for name in left)
    assert len(left) < len(everything)


def test_ignore_wins_over_layers_and_ratios(groups: list[Group]) -> None:
    for options in (
        {"mode": "layer", "layers": ("head.stems",)},
        {"layer_sparsity": {"head.stems": 0.5}},
    ):
        config = bare(ignore=("head.stems.1",), **options)
        chosen = [g.name for g in select_groups(groups, config)]
        assert chosen == ["head.stems.0.conv", "head.stems.2.conv"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "conv", "layers": ("head.stems.0",)},
        {"layer_sparsity": {"head.stems.0": 0.5}},
    ],
)
def test_nothing_left_after_ignore_is_an_error(groups: list[Group], options: dict) -> None:
    with pytest.raises(PruningError, match="`ignore` leaves nothing to prune"):
        select_groups(groups, bare(ignore=("*",), **options))


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("layer_sparsity", {"layer_sparsity": {"*": 0.5, "head.stem.1": 0.2}}),
        ("ignore", {"ignore": ("head.stem.1",)}),
        ("layers", {"mode": "layer", "layers": ("head.stem.1",)}),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest(
    groups: list[Group], argument: str, options: dict
) -> None:
    with pytest.raises(PruningError, match="matches no prunable convolution; nearest: ") as caught:
        select_groups(groups, bare(**options))
    assert str(caught.value).startswith(f"`{argument}` 'head.stem.1' ")
    assert "head.stems.1.conv" in str(caught.value)
