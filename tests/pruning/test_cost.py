"""Costs foretold for removals against what is counted on the model that is left."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import SLIM_SPECS, DenseNet, FlatMap, ResNet, random_plan
from yolox.models import build_model
from yolox.pruning import Group, Member, PruningPlan, apply_plan, trace_groups
from yolox.pruning.cost import (
    CostModel,
    LayerCost,
    channel_costs,
    mac_costs,
    memory_costs,
    param_costs,
)
from yolox.utils.model_utils import count_macs, count_params

NETS = ("yolox-nano", "yolox-s", "ResNet", "DenseNet", "FlatMap")


def net(name: str) -> tuple[nn.Module, Tensor]:
    """A model and an input for it."""
    if name in SLIM_SPECS:
        return build_model(SLIM_SPECS[name]), torch.rand(1, 3, 64, 64)
    model = {"ResNet": ResNet, "DenseNet": DenseNet, "FlatMap": FlatMap}[name]()
    return model, torch.rand(1, 3, 16, 16)


def foretell(costs: CostModel, groups: list[Group], plan: PruningPlan) -> float:
    """What is left of a cost after a plan, its groups taken in two turns each."""
    left = costs.total
    for number, group in enumerate(groups):
        slots = len(plan.removed.get(group.name, ()))
        for part in (slots // 2, slots - slots // 2):
            left -= costs.remove(number, part)
    return left


def written(model: nn.Module, x: Tensor) -> int:
    """Values that convolutions and linear layers put out, seen by hooks on a real pass."""
    sizes: list[int] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _m, _a, out: sizes.append(out.numel()))
    with torch.no_grad():
        model.eval()(x)
    return sum(sizes)


@pytest.mark.parametrize("name", NETS)
def test_what_is_foretold_is_what_is_counted(name: str) -> None:
    model, x = net(name)
    groups = trace_groups(model, x)
    params, macs, memory = param_costs(model), mac_costs(model, x), memory_costs(model, x)
    assert CostModel(groups, params).total == count_params(model)
    assert CostModel(groups, macs).total == count_macs(model, x)[""]
    for seed in range(2):
        plan = random_plan(groups, random.Random(seed))
        small = apply_plan(model, groups, plan)
        for costs, counted in (
            (params, count_params(small)),
            (macs, count_macs(small, x)[""]),
            (memory, written(small, x)),
        ):
            left = foretell(CostModel(groups, costs), groups, plan)
            assert left == pytest.approx(counted, rel=1e-9)
            assert round(left) == counted


def test_costs_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),  # on a 4 × 4 map
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False),
        nn.PReLU(4),
        nn.Conv2d(4, 2, 1),
    )
    x = torch.rand(1, 3, 8, 8)
    assert param_costs(model) == {
        "0": LayerCost(cost=108, outputs=4, inputs=3),
        "0.bias": LayerCost(cost=4, outputs=4, inputs=None),
        "1": LayerCost(cost=8, outputs=4, inputs=None),
        "2": LayerCost(cost=36, outputs=4, inputs=None),
        "3": LayerCost(cost=4, outputs=4, inputs=None),
        "4": LayerCost(cost=8, outputs=2, inputs=4),
        "4.bias": LayerCost(cost=2, outputs=2, inputs=None),
    }
    assert mac_costs(model, x) == {
        "0": LayerCost(cost=108 * 16, outputs=4, inputs=3),
        "2": LayerCost(cost=36 * 16, outputs=4, inputs=None),
        "4": LayerCost(cost=8 * 16, outputs=2, inputs=4),
    }
    assert memory_costs(model, x) == {
        "0": LayerCost(cost=64, outputs=4, inputs=None),
        "2": LayerCost(cost=64, outputs=4, inputs=None),
        "4": LayerCost(cost=32, outputs=2, inputs=None),
    }
    groups = trace_groups(model, x)
    # One channel of four: a quarter of every layer, but of the last one's two biases none.
    assert CostModel(groups, param_costs(model)).remove(0, 1) == 27 + 1 + 2 + 9 + 1 + 2
    assert CostModel(groups, mac_costs(model, x)).remove(0, 1) == (27 + 9 + 2) * 16
    assert CostModel(groups, memory_costs(model, x)).remove(0, 1) == 16 + 16


def pair() -> tuple[list[Group], dict[str, LayerCost]]:
    """Layers a (4 outputs) and b, which reads them and has 5 outputs."""
    whole, half = np.arange(4)[:, None], np.arange(5)[:, None]
    a = Member(name="a", axis="out", index=whole, produces=True)
    reads = Member(name="b", axis="in", index=whole, produces=False)
    b = Member(name="b", axis="out", index=half, produces=True)
    groups = [Group(name="a", size=4, members=(a, reads)), Group(name="b", size=5, members=(b,))]
    costs = {
        "a": LayerCost(cost=40, outputs=4, inputs=3),
        "b": LayerCost(cost=200, outputs=5, inputs=4),
    }
    return groups, costs


def test_a_saving_falls_as_the_layer_at_the_other_end_shrinks() -> None:
    costs = CostModel(*pair())
    assert costs.total == 240
    assert costs.saving(0, 1) == pytest.approx(10 + 50)
    assert costs.saving(0, 1) == pytest.approx(60)  # asking changed nothing
    assert costs.remove(1, 3) == pytest.approx(120)
    assert costs.saving(0, 1) == pytest.approx(10 + 20)
    assert costs.remove(0, 2) == pytest.approx(2 * 30)
    assert costs.remove(0, -2) == pytest.approx(-60)
    assert costs.remove(1, -3) == pytest.approx(-120)
    assert costs.saving(0, 1) == pytest.approx(60)


def test_channels_count_every_producer() -> None:
    groups, _ = pair()
    model = CostModel(groups, channel_costs(groups))
    assert model.total == 9
    assert model.remove(0, 3) == pytest.approx(3)
    stage = ResNet()
    groups = trace_groups(stage, torch.rand(1, 3, 16, 16))
    model = CostModel(groups, channel_costs(groups))
    # Stem and a block of 8; three convs on the stage of 16 (one the shortcut), two in its blocks.
    assert model.total == 8 * 3 + 16 * 5
    assert model.remove(0, 1) == pytest.approx(2)
