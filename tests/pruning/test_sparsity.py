"""The penalty on batch norms: hand-computed pulls, zeros, schedules, and what it refuses."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import (
    SLIM_SPECS,
    DenseNet,
    ResNet,
    assert_untouched,
    bare,
    enliven,
    snapshot,
)
from yolox.core import build_sgd
from yolox.models import build_model
from yolox.pruning import prune_model, trace_groups
from yolox.pruning.sparsity import Sparsity, SparsityConfig, make_sparsity
from yolox.utils.errors import UserError

EXAMPLE = torch.zeros(1, 3, 32, 32)


class Chain(nn.Module):
    """Two norms side by side whose sum is read, then one more: slots of two channels and of one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.bn_a, self.bn_b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.c, self.bn_c = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.last, self.bn_last = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_a(self.a(x)) + self.bn_b(self.b(x))
        return self.bn_last(self.last(self.bn_c(self.c(x))))


def _set(norm: nn.BatchNorm2d, values: list[float], kind: str = "weight") -> None:
    with torch.no_grad():
        getattr(norm, kind).copy_(torch.tensor(values))


def _chain() -> Chain:
    model = Chain()
    _set(model.bn_a, [3.0, -0.5, 0.0])
    _set(model.bn_b, [4.0, 0.0, 0.0])
    _set(model.bn_c, [-0.2, 1e-30])
    return model


def _penalty(model: nn.Module, momentum: float = 0.0, **fields: Any) -> Sparsity:
    config = SparsityConfig(**{"strength": 0.1, **fields})
    return make_sparsity(model, config, EXAMPLE, momentum=momentum)


# ------------------------------------------------------------------------------------ subgradients


def test_l1_adds_the_sign_of_each_scale() -> None:
    model = _chain()
    model.bn_a.weight.grad = torch.tensor([1.0, 2.0, 3.0])
    _penalty(model, proximal=False).add_gradients(0.5)
    torch.testing.assert_close(model.bn_a.weight.grad, torch.tensor([1.1, 1.9, 3.0]))
    # As raw as it is: however small γ, the pull is whole.
    assert model.bn_c.weight.grad is not None
    torch.testing.assert_close(model.bn_c.weight.grad, torch.tensor([-0.1, 0.1]))
    assert model.bn_a.bias.grad is None
    assert model.bn_last.weight.grad is None  # its channels are the output: never pruned


def test_group_adds_the_direction_of_each_slot() -> None:
    model = _chain()
    _penalty(model, form="group", proximal=False).add_gradients(0.5)
    root = math.sqrt(2)
    expected = {
        "bn_a": [0.1 * root * 3 / 5, -0.1 * root, 0.0],
        "bn_b": [0.1 * root * 4 / 5, 0.0, 0.0],
        "bn_c": [-0.1, 0.1],
    }
    for name, values in expected.items():
        gradient = model.get_parameter(f"{name}.weight").grad
        assert gradient is not None
        torch.testing.assert_close(gradient, torch.tensor(values), msg=name)


@pytest.mark.parametrize("form", ["l1", "group"])
def test_gradient_is_that_of_the_formula(form: str) -> None:
    """Against autograd, with γ and β, on a net of residual stages."""
    model = enliven(ResNet())
    penalty = _penalty(model, form=form, proximal=False, shift=0.03)
    penalty.add_gradients(0.2)
    modules = dict(model.named_modules())
    for kind, strength in (("weight", 0.1), ("bias", 0.03)):
        slots = [
            [getattr(modules[m.name], kind)[int(c)] for m in group.members
             if isinstance(modules[m.name], nn.BatchNorm2d) for c in m.index[slot]]
            for group in trace_groups(model, EXAMPLE) for slot in range(group.size)
        ]  # fmt: skip
        if form == "l1":
            slots = [[value] for slot in slots for value in slot]
        total = sum(
            strength * math.sqrt(len(slot)) * torch.stack(slot).norm() for slot in slots if slot
        )
        parameters = {
            name: p for name, p in model.named_parameters()
            if name.endswith(kind) and isinstance(modules[name.rpartition(".")[0]], nn.BatchNorm2d)
        }  # fmt: skip
        assert len(parameters) == 8
        expected = torch.autograd.grad(total, list(parameters.values()))
        for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient, msg=name)


# ------------------------------------------------------------------------------------- proximal


def test_soft_threshold_stops_at_zero() -> None:
    model = _chain()
    penalty = _penalty(model, momentum=0.9)  # threshold 0.1 · 0.3 / (1 − 0.9)
    penalty.add_gradients(0.5)
    assert model.bn_a.weight.grad is None
    penalty.shrink(0.3, 0.5)
    torch.testing.assert_close(model.bn_a.weight.detach(), torch.tensor([2.7, -0.2, 0.0]))
    assert model.bn_c.weight.tolist() == [0.0, 0.0]
    assert model.bn_last.weight.tolist() == [1.0, 1.0]
    before = snapshot(model)
    _penalty(model, proximal=False).shrink(0.3, 0.5)
    assert_untouched(model, before)


def test_each_parameter_may_have_a_rate_of_its_own() -> None:
    model = _chain()
    rates = {id(model.bn_a.weight): 1.0, id(model.bn_b.weight): 5.0}
    _penalty(model).shrink(lambda parameter: rates.get(id(parameter), 0.0), 0.5)
    torch.testing.assert_close(model.bn_a.weight.detach(), torch.tensor([2.9, -0.4, 0.0]))
    torch.testing.assert_close(model.bn_b.weight.detach(), torch.tensor([3.5, 0.0, 0.0]))
    torch.testing.assert_close(model.bn_c.weight.detach(), torch.tensor([-0.2, 1e-30]))


def test_group_soft_threshold_takes_a_slot_as_a_whole() -> None:
    model = _chain()
    _set(model.bn_b, [4.0, 0.1, 0.0])
    _set(model.bn_a, [3.0, -0.1, 0.0])
    _set(model.bn_b, [1.0, -1.0, 0.5], "bias")
    _penalty(model, form="group", momentum=0.5, shift=1.0).shrink(1.0, 0.5)
    pull = 0.2 * math.sqrt(2)
    expected = torch.tensor([4.0 * (1 - pull / 5), 0.0, 0.0])
    torch.testing.assert_close(model.bn_b.weight.detach(), expected)
    assert model.bn_a.weight.tolist()[1:] == [0.0, 0.0]
    assert model.bn_b.bias.tolist() == [0.0, 0.0, 0.0]  # pulled by 2 · √2


@pytest.mark.parametrize("proximal", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_both_ways_find_the_minimum_of_loss_and_penalty(proximal: bool, momentum: float) -> None:
    """Of ½(γ − a)² + s·|γ|: a ∓ s, or 0 where |a| ≤ s. Proximal gets there to the bit."""
    model = _chain()
    target = torch.tensor([0.5, -0.3, 0.09])
    optimizer = build_sgd(model, lr=0.02, momentum=momentum, weight_decay=0.5) if momentum else (
        torch.optim.SGD([model.bn_a.weight], lr=0.02)
    )  # fmt: skip
    penalty = _penalty(model, momentum=momentum, proximal=proximal)
    for _ in range(1000):
        optimizer.zero_grad()
        model.bn_a.weight.grad = model.bn_a.weight.detach() - target
        penalty.add_gradients(0.5)
        optimizer.step()
        penalty.shrink(0.02, 0.5)
    found = model.bn_a.weight.detach()
    torch.testing.assert_close(found[:2], torch.tensor([0.4, -0.2]), rtol=0, atol=1e-4)
    assert abs(float(found[2])) < 0.03
    assert (float(found[2]) == 0) is proximal


def test_scales_have_no_weight_decay_beside_the_penalty() -> None:
    model = build_model(SLIM_SPECS["yolox-nano"])
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=0.05)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    penalty = _penalty(model)
    assert {decay[id(scale)] for scale in penalty.scale_parameters()} == {0.0}
    assert {decay[id(model.get_submodule(name).bias)] for name in penalty.layers} == {0.0}


# ------------------------------------------------------------------------------ what is penalised


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s", "yolov3"])
def test_residual_stages_are_penalised_too(name: str) -> None:
    model = build_model(SLIM_SPECS[name])
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert set(_penalty(model).layers) == norms
    grouped = _penalty(model, form="group")
    joint = grouped.slot_C.bincount()
    assert len(joint) < len(grouped.slot_C)  # slots that several norms share
    assert joint.sum() == len(grouped.histograms()["gamma"])


def test_a_norm_over_a_concat_has_slots_of_several_groups() -> None:
    model = DenseNet()
    _set(model.bns[2], [0.3] * 14)
    _penalty(model, form="group", proximal=False).add_gradients(0.1)
    third = model.bns[2].weight.grad
    assert third is not None
    # Of the stem (in all three norms), of the first layer (in two), of the second (alone).
    first, second = 0.1 * math.sqrt(3) * 0.3 / math.sqrt(2.09), 0.1 * math.sqrt(2) * 0.3
    expected = [first] * 6 + [second / math.sqrt(1.09)] * 4 + [0.1] * 4
    torch.testing.assert_close(third, torch.tensor(expected))


def test_frozen_norms_are_left_out() -> None:
    model = _chain()
    model.bn_b.weight.requires_grad_(False)
    penalty = _penalty(model, form="group", proximal=False)
    penalty.add_gradients(0.5)
    assert model.bn_b.weight.grad is None
    assert model.bn_a.weight.grad is not None
    assert model.bn_a.weight.grad.tolist() == pytest.approx([0.1, -0.1, 0.0])
    assert len(penalty.histograms()["gamma"]) == 5
    model.bn_a.weight.requires_grad_(False)
    model.bn_c.weight.requires_grad_(False)
    with pytest.raises(UserError, match=r"all 3 are frozen; let their weights require gradients"):
        _penalty(model)


def test_a_model_without_norms_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(UserError, match=r"needs a batch norm .* fused for inference"):
        _penalty(model)
    with pytest.raises(UserError, match=r"sparsity: the model has no prunable channels"):
        _penalty(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_making_it_does_not_touch_the_model() -> None:
    model = enliven(ResNet())
    before = snapshot(model)
    _penalty(model)
    assert_untouched(model, before)
    assert model.training


def test_a_pruned_model_can_be_sparsified() -> None:
    model = enliven(build_model(SLIM_SPECS["yolox-nano"]))
    config = bare(importance="l1", ch_sparsity=0.3, rounds=1)
    small = prune_model(model, torch.rand(1, 3, 64, 64), config).model
    penalty = _penalty(small, form="group")
    penalty.shrink(100.0, 0.5)
    scales = [m.weight for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(penalty.histograms()["gamma"]) == sum(map(len, scales))
    assert penalty.text() == "γ < 0.01: 100 %"


# -------------------------------------------------------------------------------------- schedules


def test_schedules_rise_hold_and_fall() -> None:
    def factors(**fields: Any) -> list[float]:
        config = SparsityConfig(strength=0.1, **fields)
        return [config.factor(progress) for progress in (0.0, 0.25, 0.5, 0.9, 1.0)]

    assert factors() == [1.0] * 5
    assert factors(schedule="linear") == pytest.approx([1, 0.775, 0.55, 0.19, 0.1])
    assert factors(schedule="step") == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert factors(schedule="step", drops=(0.9,)) == pytest.approx([1, 1, 1, 0.1, 0.1])
    assert factors(warmup=0.5) == pytest.approx([0, 0.5, 1, 1, 1])
    assert factors(warmup=0.5, schedule="linear") == pytest.approx([0, 0.3875, 0.55, 0.19, 0.1])


def test_the_schedule_scales_both_penalties() -> None:
    model = _chain()
    _set(model.bn_a, [-2.0, 2.0, 2.0], "bias")
    penalty = _penalty(model, shift=0.2, schedule="linear", proximal=False)
    penalty.add_gradients(0.5)
    assert model.bn_a.weight.grad is not None
    assert model.bn_a.bias.grad is not None
    assert model.bn_a.weight.grad.tolist() == pytest.approx([0.055, -0.055, 0.0])
    assert model.bn_a.bias.grad.tolist() == pytest.approx([-0.11, 0.11, 0.11])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": 0.0}, "strength must be above 0 and at most 1, usual are 1e-4 to 1e-2"),
        ({"strength": -1e-3}, "strength must be above 0"),
        ({"strength": 10.0}, "usual are 1e-4 to 1e-2"),
        ({"strength": math.nan}, "strength must be above 0"),
        ({"strength": math.inf}, "strength must be above 0"),
        ({"form": "l2"}, "form must be one of l1, group: 'l2'"),
        ({"schedule": "cosine"}, "schedule must be one of constant, linear, step: 'cosine'"),
        ({"warmup": 1.0}, "warmup must be a fraction of the run in [0, 1): 1.0"),
        ({"shift": -0.1}, "shift must be in [0, 1]: -0.1"),
        ({"drops": (0.7, 0.5)}, "drops must be rising fractions between 0 and 1"),
        ({"drops": (0.5, 1.0)}, "drops must be rising fractions between 0 and 1"),
    ],
)
def test_a_setting_out_of_range_is_told(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        SparsityConfig(**{"strength": 0.1, **fields})
    assert str(caught.value).startswith("sparsity: ")
    assert words in str(caught.value)


def test_all_settings_out_of_range_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"strength must .*; shift must .*; form must "):
        SparsityConfig(strength=0, shift=2, form="l0")


# ---------------------------------------------------------------------------------------- average


def test_the_average_gets_the_zeros_and_nothing_else() -> None:
    model = _chain()
    average = copy.deepcopy(model)
    for value in average.state_dict().values():
        value.add_(1)
    before = snapshot(average)
    _penalty(model).settle(average)
    expected = {"bn_a.weight": [4.0, 0.5, 0.0], "bn_b.weight": [5.0, 0.0, 0.0]}
    for name, value in average.state_dict().items():
        if name in expected:
            assert value.tolist() == expected[name]
        else:
            assert torch.equal(value, before[name]), name
    _penalty(model, shift=0.1).settle(average)
    assert average.bn_a.bias.tolist() == [0.0, 0.0, 0.0]
    assert average.bn_last.bias.tolist() == [1.0, 1.0]


# ----------------------------------------------------------------------------------- what it tells


def test_figures_tell_shares_quantiles_and_histograms() -> None:
    model = _chain()
    penalty = _penalty(model)
    assert penalty.text() == "γ < 0.01: 50 %"  # 0, 0, 0 and 1e-30 of eight
    scalars = penalty.scalars()
    assert scalars["sparsity/below_0.01"] == 0.5
    assert scalars["sparsity/below_0.1"] == 0.5
    quantiles = [scalars[f"sparsity/quantile_{q}"] for q in (0, 25, 50, 75, 100)]
    assert quantiles == pytest.approx([0, 0, 0.1, 1.125, 4])
    histograms = penalty.histograms()
    assert list(histograms) == ["gamma", "gamma/bn_a", "gamma/bn_b", "gamma/bn_c"]
    assert histograms["gamma/bn_a"].tolist() == [3.0, 0.5, 0.0]
    assert len(histograms["gamma"]) == 8


def test_forecast_tells_a_strength_that_is_too_weak_or_too_strong() -> None:
    model = _chain()
    for norm in (model.bn_a, model.bn_b, model.bn_c):
        _set(norm, [0.5] * len(norm.weight))
    penalty = _penalty(model, momentum=0.9, strength=0.01)
    half = [(0.1, 0.5), (0.0, 1.0)]
    # 100 steps · mean 0.05 · 0.01 / (1 − 0.9) is the median exactly; 80 steps are not enough.
    assert penalty.forecast(half, 101) == ""
    weak = penalty.forecast(half, 80)
    assert weak.startswith("sparsity 0.01 is weak for this run: it moves γ by 0.4 at most in 80")
    assert "the median of |γ| is 0.5: try 0.016, more epochs or" in weak
    # A strength of 0.16 would be harsh, and no strength helps where the rate is 0.
    for rates, steps in ((half, 8), ([(0.0, 0.5)], 80)):
        assert penalty.forecast(rates, steps).endswith(
            ": it takes more epochs or a higher learning rate"
        )
    harsh = _penalty(model, momentum=0.9, strength=0.3).forecast(half, 8)
    assert harsh.startswith("sparsity 0.3 is above 0.1: it outweighs the loss")
