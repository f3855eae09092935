"""Which channels live or die together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import (
    SLIM_SPECS,
    DenseNet,
    FlatMap,
    ResNet,
    SharedConv,
    Split,
    assert_untouched,
    group_of,
    member_of,
    plan_of,
    snapshot,
)
from yolox.models import build_model
from yolox.pruning import Group, apply_plan, trace_groups


def groups_of(name: str) -> tuple[nn.Module, list[Group]]:
    model = build_model(SLIM_SPECS[name])
    return model, trace_groups(model, torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("name", SLIM_SPECS)
def test_every_channel_is_in_exactly_one_slot(name: str) -> None:
    model, groups = groups_of(name)
    seen: dict[tuple[str, str], list[int]] = {}
    for group in groups:
        for member in group.members:
            assert len(member.index) == group.size
            seen.setdefault((member.name, member.axis), []).extend(member.index.ravel().tolist())
    for layer, module in model.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            continue
        width = module.out_channels if isinstance(module, nn.Conv2d) else module.num_features
        expected = [] if "_preds" in layer else list(range(width))
        assert sorted(seen.pop((layer, "out"), [])) == expected, layer
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            reads_image = module.in_channels in (3, 12)  # 12: after the space-to-depth
            inputs = [] if reads_image else list(range(module.in_channels))
            assert sorted(seen.pop((layer, "in"), [])) == inputs, layer
    assert not seen
    assert len({group.name for group in groups}) == len(groups)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("yolox-nano", 67),
        ("yolox-tiny", 67),
        ("yolox-s", 67),
        ("yolox-m", 84),
        ("yolox-l", 101),
        ("yolox-x", 118),
        ("yolov3", 62),
    ],
)
def test_number_of_groups(name: str, count: int) -> None:
    assert len(groups_of(name)[1]) == count


def test_a_csp_residual_stage_is_one_group() -> None:
    _, groups = groups_of("yolox-l")
    stage = "backbone.backbone.dark3.1"
    group = group_of(groups, f"{stage}.conv1.conv")
    blocks = [f"{stage}.m.{i}.conv2.conv" for i in range(9)]
    assert [m.name for m in group.producers] == [f"{stage}.conv1.conv", *blocks]
    assert group.size == 16
    # Every tied channel is the same one in each member: the adds go element by element.
    for member in group.producers:
        np.testing.assert_array_equal(member.index[:, 0], np.arange(group.size))


def test_a_darknet_residual_stage_is_one_group() -> None:
    _, groups = groups_of("yolov3")
    group = group_of(groups, "backbone.backbone.dark4.0.conv")
    assert len(group.producers) == 1 + 8
    assert group.channels_per_slot == 9
    assert group.size == 512


def test_a_neck_without_shortcuts_has_a_group_a_layer() -> None:
    _, groups = groups_of("yolox-l")
    for i in range(3):
        group = group_of(groups, f"backbone.C3_p4.m.{i}.conv2.conv")
        assert [m.name for m in group.producers] == [f"backbone.C3_p4.m.{i}.conv2.conv"]


def test_concat_offsets() -> None:
    """In a CSP layer, conv3 reads the bottlenecks' channels first, conv2's after them."""
    model, groups = groups_of("yolox-s")
    stage = "backbone.backbone.dark2.1"
    hidden = model.get_submodule(f"{stage}.conv2.conv").out_channels
    main = member_of(group_of(groups, f"{stage}.conv1.conv"), f"{stage}.conv3.conv", "in")
    side = member_of(group_of(groups, f"{stage}.conv2.conv"), f"{stage}.conv3.conv", "in")
    assert main.index.ravel().tolist() == list(range(hidden))
    assert side.index.ravel().tolist() == list(range(hidden, 2 * hidden))


def test_pyramid_pooling_repeats_its_input() -> None:
    model, groups = groups_of("yolox-s")
    spp = "backbone.backbone.dark5.1"
    hidden = model.get_submodule(f"{spp}.conv1.conv").out_channels
    member = member_of(group_of(groups, f"{spp}.conv1.conv"), f"{spp}.conv2.conv", "in")
    expected = np.arange(hidden)[:, None] + hidden * np.arange(4)
    np.testing.assert_array_equal(member.index, expected)


def test_a_depthwise_conv_belongs_to_what_feeds_it() -> None:
    _, groups = groups_of("yolox-nano")
    down = "backbone.backbone.dark2.0"
    group = group_of(groups, "backbone.backbone.stem.conv.conv")
    names = [(m.name, m.axis) for m in group.members]
    assert (f"{down}.dconv.conv", "out") in names
    assert (f"{down}.dconv.bn", "out") in names
    assert (f"{down}.pconv.conv", "in") in names


def test_head_branches_share_their_stem() -> None:
    _, groups = groups_of("yolox-s")
    readers = [m.name for m in group_of(groups, "head.stems.0.conv").members if m.axis == "in"]
    assert readers == ["head.cls_convs.0.0.conv", "head.reg_convs.0.0.conv"]
    last = group_of(groups, "head.reg_convs.1.1.conv")
    readers = [m.name for m in last.members if m.axis == "in"]
    assert readers == ["head.reg_preds.1", "head.obj_preds.1"]


def test_groups_of_a_resnet() -> None:
    groups = trace_groups(ResNet(), torch.rand(1, 3, 16, 16))
    assert {g.name: [m.name for m in g.producers] for g in groups} == {
        "stem.0": ["stem.0", "stages.0.conv2"],
        "stages.0.conv1": ["stages.0.conv1"],
        "stages.1.conv1": ["stages.1.conv1"],
        "stages.1.conv2": ["stages.1.conv2", "stages.1.down.0", "stages.2.conv2"],
        "stages.2.conv1": ["stages.2.conv1"],
    }
    assert member_of(groups[3], "fc", "in").index.tolist() == [[i] for i in range(16)]


def test_groups_of_a_densenet() -> None:
    groups = trace_groups(DenseNet(), torch.rand(1, 3, 16, 16))
    assert [(g.name, g.size) for g in groups] == [
        ("stem", 6),
        ("convs.0", 4),
        ("convs.1", 4),
        ("convs.2", 4),
    ]
    second = groups[1]
    for reader, axis in (("bns.1", "out"), ("convs.1", "in"), ("convs.2", "in"), ("last", "in")):
        assert member_of(second, reader, axis).index.ravel().tolist() == [6, 7, 8, 9], reader


def test_a_flattened_channel_is_a_run_of_features() -> None:
    groups = trace_groups(FlatMap(), torch.rand(1, 3, 16, 16))
    assert [(g.name, g.size) for g in groups] == [("conv", 6), ("fc1", 10)]
    index = member_of(groups[0], "fc1", "in").index
    np.testing.assert_array_equal(index, np.arange(96).reshape(6, 16))


def test_halves_of_a_chunk_lose_as_many_and_a_slice_of_fixed_size_keeps_its_input() -> None:
    groups = trace_groups(Split(), torch.rand(1, 3, 16, 16))
    halves = {g.name: g.balance for g in groups if g.balance}
    assert halves == {"chunked": "chunked", "chunked#2": "chunked"}
    assert {g.name for g in groups} - halves.keys() == {"left", "right", "free"}


def test_a_conv_that_runs_twice_ties_its_input_and_output() -> None:
    groups = trace_groups(SharedConv(), torch.rand(1, 3, 16, 16))
    assert [[m.name for m in g.producers] for g in groups] == [["first", "shared"]]


def test_a_grouped_conv_loses_whole_groups() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 6, 1), nn.Conv2d(6, 2, 1)
    )
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    assert [(g.name, g.size) for g in groups] == [("0", 4), ("2", 6)]
    assert member_of(groups[0], "0", "out").index.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert member_of(groups[0], "1", "out").index.tolist()[1] == [3, 4, 5]
    small = apply_plan(model, groups, plan_of(groups, {"0": (1,)}))
    conv: Any = small[1]
    assert (conv.in_channels, conv.out_channels, conv.groups) == (6, 9, 3)
    assert conv.weight.equal(model[1].weight[[0, 1, 2, *range(6, 12)]])


def test_transposed_convs_are_kept() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
    )
    assert [g.name for g in trace_groups(model, torch.rand(1, 3, 8, 8))] == ["2"]


def test_nothing_prunable_is_an_error() -> None:
    with pytest.raises(ValueError, match="no prunable channels"):
        trace_groups(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.rand(1, 3, 8, 8))


def test_an_untraceable_model_is_an_error_that_names_the_input() -> None:
    model = nn.Sequential(nn.Conv2d(5, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match=r"cannot be traced .*\(1, 3, 8, 8\)"):
        trace_groups(model, torch.rand(1, 3, 8, 8))


def test_tracing_touches_nothing() -> None:
    model = build_model(SPECS["yolox-nano"]).to(torch.bfloat16).train().requires_grad_(False)
    before = snapshot(model)
    with torch.no_grad():
        trace_groups(model, torch.rand(1, 3, 64, 64))
    assert_untouched(model, before)
    assert model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_the_size_of_the_example_does_not_matter() -> None:
    model = build_model(SPECS["yolox-nano"])
    small, large = (trace_groups(model, torch.rand(1, 3, s, s)) for s in (64, 160))
    assert [(g.name, g.size, len(g.members)) for g in small] == [
        (g.name, g.size, len(g.members)) for g in large
    ]


def test_a_module_that_cannot_run_is_named_with_what_went_wrong() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(7, -1)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), Broken()))
    with pytest.raises(ValueError, match=r"cannot be traced .* in 1\.1 \(Broken\): RuntimeError"):
        trace_groups(model, torch.rand(1, 3, 8, 8))


def test_groups_of_like_shape_are_of_one_kind() -> None:
    groups = trace_groups(build_model(SPECS["yolox-nano"]), torch.rand(1, 3, 64, 64))
    kinds = {group.name: group.kind for group in groups}
    assert kinds["head.stems.0.conv"] == kinds["head.stems.2.conv"]
    assert kinds["head.stems.0.conv"] != kinds["backbone.backbone.stem.conv.conv"]


def test_groups_come_in_module_order() -> None:
    model = build_model(SPECS["yolox-nano"])
    order = [name for name, _ in model.named_modules()]
    firsts = [
        order.index(g.producers[0].name) for g in trace_groups(model, torch.rand(1, 3, 64, 64))
    ]
    assert firsts == sorted(firsts)
