"""pruned(x) == masked(x): for random plans, on every model, every activation, and foreign nets."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random

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
    Shuffled,
    SqueezeExcite,
    assert_untouched,
    bare,
    enliven,
    plan_of,
    random_plan,
    relative,
    snapshot,
)
from yolox.models import ModelSpec, build_model
from yolox.models.network_blocks import BaseConv
from yolox.pruning import (
    PruningError,
    apply_plan,
    mask_plan,
    prune_model,
    trace_groups,
    verify_plan,
)


def image(seed: int = 0, size: int = 64) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def check_random_plans(spec: ModelSpec, seeds: range) -> None:
    model = enliven(build_model(spec)).eval()
    before = snapshot(model)
    x = image()
    with torch.no_grad():
        dense = model(x)
        groups = trace_groups(model, x)
        for seed in seeds:
            plan = random_plan(groups, random.Random(seed))
            small, masked = apply_plan(model, groups, plan), mask_plan(model, groups, plan)
            assert_untouched(model, before)
            expected = masked(x)
            assert relative(small(x), expected) < 1e-4
            small, masked = small.double(), masked.double()
            assert relative(small(x.double()), masked(x.double())) < 1e-9
            # Both checks would hold for a model that ignores its input or its plan.
            assert relative(expected, dense) > 1e-3
            for group in groups:
                for member in group.members:
                    if member.axis == "out":
                        gone = len(plan.removed.get(group.name, ())) * member.index.shape[1]
                        cut = small.get_submodule(member.name).weight
                        assert len(cut) <= len(model.get_submodule(member.name).weight) - gone


@pytest.mark.parametrize(
    ("name", "act"),
    [
        *(("yolox-nano", act) for act in ("silu", "mish", "relu")),
        *zip(list(SLIM_SPECS)[1:], itertools.cycle(("silu", "mish", "relu")), strict=False),
    ],
)
def test_random_plans_on_every_model(name: str, act: str) -> None:
    plans = 2 if name in ("yolox-nano", "yolox-tiny") else 1
    check_random_plans(dataclasses.replace(SLIM_SPECS[name], act=act), range(plans))


@pytest.mark.slow
def test_random_plans_at_full_width() -> None:
    check_random_plans(SPECS["yolox-s"], range(1))


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-tiny"])
def test_masking_equals_silencing_where_channels_are_made(name: str) -> None:
    """The plan in another way: zero the removed channels after every activation, cut nothing."""
    model = enliven(build_model(SPECS[name])).eval().double()
    x = image().double()
    groups = trace_groups(model, x)
    plan = random_plan(groups, random.Random(3))
    masked = mask_plan(model, groups, plan)

    gone: dict[str, list[int]] = {}
    for group in groups:
        for member in group.members:
            if member.axis == "out" and member.name.endswith(".conv"):
                slots = list(plan.removed.get(group.name, ()))
                channels = member.index[slots].ravel().tolist()
                gone.setdefault(member.name.removesuffix(".conv"), []).extend(channels)

    def silence(channels: list[int]):
        def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            return output.index_fill(1, torch.tensor(channels, dtype=torch.int64), 0)

        return hook

    silenced = copy.deepcopy(model)
    for unit, channels in gone.items():
        assert isinstance(silenced.get_submodule(unit), BaseConv)
        silenced.get_submodule(unit).register_forward_hook(silence(channels))
    with torch.no_grad():
        assert relative(silenced(x), masked(x)) < 1e-9
        assert relative(model(x), masked(x)) > 1e-3


@pytest.mark.parametrize("net", [ResNet, DenseNet, FlatMap, SharedConv, SqueezeExcite])
def test_random_plans_on_foreign_nets(net: type[nn.Module]) -> None:
    model = enliven(net()).eval()
    before = snapshot(model)
    x = image(size=16)
    groups = trace_groups(model, x)
    for seed in range(8):
        plan = random_plan(groups, random.Random(seed))
        small = apply_plan(model, groups, plan)
        assert verify_plan(model, groups, plan, x, pruned=small) < 1e-9
        assert_untouched(model, before)
        assert all(len(p) for p in small.parameters())


def test_a_net_that_shuffles_channels_is_followed() -> None:
    model = enliven(Shuffled()).eval()
    x = image(size=16)
    for layers in (("conv1",), ("conv2",)):
        result = prune_model(model, x, bare(mode="conv", layers=layers, importance="l1"))
        assert result.report.difference < 1e-9


class MixedAsItTrains(Shuffled):
    """What a run in evaluation mode does not show."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        return self.conv2(y.flip(1) if self.training else y)


def test_a_net_that_mixes_channels_as_it_trains_is_refused() -> None:
    model = enliven(MixedAsItTrains()).eval()
    x = image(size=16)
    with pytest.raises(PruningError, match=r"training mode.*flip.*`ignore`.*conv1 \("):
        prune_model(model, x, bare(mode="conv", layers=("conv1",), importance="l1"))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 8), nn.LayerNorm([8, 16, 16]), nn.Softmax(1)])
def test_a_layer_that_mixes_channels_is_refused(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), norm, nn.ReLU(), nn.Conv2d(8, 2, 1))
    config = bare(importance="l1")
    with pytest.raises(
        PruningError, match=r"no prunable channels.*(native_group_norm|native_layer_norm|_softmax)"
    ):
        prune_model(enliven(model), image(size=16), config)


def test_verification_sees_one_wrong_channel() -> None:
    model = enliven(build_model(SPECS["yolox-nano"])).eval()
    x = image()
    groups = trace_groups(model, x)
    other = apply_plan(model, groups, plan_of(groups, {groups[5].name: (2,)}))
    with pytest.raises(PruningError, match="differs from the masked one"):
        verify_plan(model, groups, plan_of(groups, {groups[5].name: (1,)}), x, pruned=other)


def test_verification_sees_wrong_channels_of_an_untrained_model() -> None:
    """Fresh weights let the signal die out on its way: outputs alone would not tell."""
    torch.manual_seed(0)
    model = build_model(SLIM_SPECS["yolox-s"]).eval()
    x = image()
    groups = trace_groups(model, x)
    for group in groups[:: len(groups) // 2]:
        plan, other = (plan_of(groups, {group.name: (slot,)}) for slot in (1, 2))
        verify_plan(model, groups, plan, x)
        with pytest.raises(PruningError, match="differs"):
            verify_plan(model, groups, plan, x, pruned=apply_plan(model, groups, other))


def test_verification_tells_rounding_that_a_model_magnifies_from_a_wrong_channel() -> None:
    """Maps of four values through a hundred rectified layers: the last bit grows to 1e-9."""
    model = enliven(build_model(dataclasses.replace(SLIM_SPECS["yolox-x"], act="relu"))).eval()
    x = image()
    groups = trace_groups(model, x)
    for group in groups[len(groups) // 2 :: len(groups)]:
        plan, other = (plan_of(groups, {group.name: (slot,)}) for slot in (1, 2))
        nudged = apply_plan(model, groups, plan).double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in nudged.parameters():
                noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.5
                parameter.mul_(1 + 4 * 2**-52 * noise)
        assert 0 < verify_plan(model, groups, plan, x, pruned=nudged) < 1e-9
        with pytest.raises(PruningError, match="differs"):
            verify_plan(model, groups, plan, x, pruned=apply_plan(model, groups, other))


def test_verification_refuses_nan() -> None:
    model = enliven(ResNet()).eval()
    x = image(size=16)
    groups = trace_groups(model, x)
    plan = plan_of(groups, {groups[0].name: (1,)})
    broken = apply_plan(model, groups, plan)
    nn.init.constant_(broken.fc.bias, float("nan"))
    with pytest.raises(PruningError, match="differs"):
        verify_plan(model, groups, plan, x, pruned=broken)
    nn.init.constant_(model.fc.bias, float("nan"))
    with pytest.raises(PruningError, match=r"fc \(Linear\) gives infinite or undefined values"):
        verify_plan(model, groups, plan, x)


def test_verification_touches_neither_model_nor_any_global_state() -> None:
    model = enliven(ResNet()).train()
    x = image(size=16)
    groups = trace_groups(model, x)
    plan = plan_of(groups, {groups[0].name: (1,)})
    other = apply_plan(model, groups, plan)
    before, smaller = snapshot(model), snapshot(other)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    verify_plan(model, groups, plan, x, pruned=other)
    assert_untouched(model, before)
    assert_untouched(other, smaller)
    assert model.training
    assert other.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_kept(training: bool) -> None:
    model = enliven(ResNet()).train(training)
    model.stages[1].eval()
    before = snapshot(model)
    small = prune_model(model, image(size=16), bare(importance="l1")).model
    assert_untouched(model, before)
    for ours, theirs in zip(small.modules(), model.modules(), strict=True):
        assert ours.training == theirs.training


def test_frozen_parameters_stay_frozen() -> None:
    model = enliven(ResNet())
    model.stem.requires_grad_(False)
    small = prune_model(model, image(size=16), bare(importance="l1")).model
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in small.named_parameters()} == flags
    assert not all(flags.values())
    model.requires_grad_(False)
    prune_model(model, image(size=16), bare(importance="l1"))


def test_gradients_and_the_graph_are_not_carried_over() -> None:
    model = enliven(ResNet())
    model(image(size=16)).sum().backward()
    small = prune_model(model, image(size=16), bare(importance="l1")).model
    cut = small.get_parameter("stem.0.weight")
    assert cut.is_leaf
    assert cut.grad is None
    small(image(size=16)).sum().backward()
    assert cut.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_kept(dtype: torch.dtype) -> None:
    model = enliven(ResNet()).to(dtype)
    before = snapshot(model)
    small = prune_model(model, image(size=16), bare(importance="l1")).model
    assert_untouched(model, before)
    for name, value in small.state_dict().items():
        assert value.dtype == before[name].dtype, name


def test_pruned_model_trains() -> None:
    model = enliven(build_model(ModelSpec(depth=0.33, width=0.25, num_classes=3)))
    groups = trace_groups(model, image())
    small = apply_plan(model, groups, random_plan(groups, random.Random(0))).train()
    labels = torch.tensor([[[1.0, 32, 32, 20, 20]]])
    small(image(), labels)["total_loss"].backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.isfinite().all(), name


def test_layers_say_what_their_tensors_are() -> None:
    model = enliven(build_model(SPECS["yolox-nano"])).eval()
    groups = trace_groups(model, image())
    small = apply_plan(model, groups, random_plan(groups, random.Random(0)))
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            inputs = module.in_channels // module.groups
            assert module.weight.shape[:2] == (module.out_channels, inputs)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.shape == module.weight.shape == (module.num_features,)
