"""The optimizer's parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers import SPECS
from yolox.core import build_sgd
from yolox.core.optim import start_momentum
from yolox.models import build_model


@pytest.mark.parametrize("name", ["yolox-nano", "yolov3"])
def test_only_weights_of_convolutions_are_decayed(name: str) -> None:
    with torch.device("meta"):
        model = build_model(SPECS[name])
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=5e-4)
    decayed = {
        id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }  # fmt: skip
    kept = {
        id(p) for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]
    }  # fmt: skip
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 5e-4}
    for module in model.modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            is_conv_weight = isinstance(module, nn.Conv2d) and parameter_name == "weight"
            assert (id(parameter) in decayed) == is_conv_weight
            assert (id(parameter) in kept) != is_conv_weight


def test_every_parameter_is_in_one_group() -> None:
    with torch.device("meta"):
        model = build_model(SPECS["yolox-nano"])
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=5e-4)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}


def test_nesterov_step_by_hand() -> None:
    model = nn.Conv2d(1, 1, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)  # type: ignore[arg-type]
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    # Nesterov's first step: v = g, then p - lr (g + momentum v); g is 2 + 0.5 · 1 where decayed.
    assert model.weight.item() == pytest.approx(1 - 0.1 * 1.9 * 2.5)
    assert model.bias is not None
    assert model.bias.item() == pytest.approx(1 - 0.1 * 1.9 * 2.0)


def test_a_first_step_that_is_left_out_leaves_no_momentum() -> None:
    """As fp16's first steps are, whose scale is too large; the next one is a first step."""
    model = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=0.0)
    start_momentum(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for slope in (float("inf"), 2.0):
        optimizer.zero_grad()
        scaler.scale((model.weight * slope).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 1.9 * 2.0)


def test_momentum_that_is_there_stays() -> None:
    model = nn.Conv2d(1, 1, 1)
    optimizer = build_sgd(model, lr=0.1, momentum=0.9, weight_decay=0.0)
    model.weight.grad = torch.full_like(model.weight, 2.0)
    optimizer.step()
    start_momentum(optimizer)
    assert optimizer.state[model.weight]["momentum_buffer"].item() == 2.0
    assert model.bias is not None
    assert optimizer.state[model.bias]["momentum_buffer"].item() == 0.0


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop])
def test_other_optimizers_start_as_they_do(kind: type[torch.optim.Optimizer]) -> None:
    model = nn.Conv2d(1, 1, 1)
    optimizer = kind(model.parameters(), lr=0.1)  # type: ignore[call-arg]
    start_momentum(optimizer)
    model(torch.ones(1, 1, 1, 1)).sum().backward()
    before = model.weight.item()
    optimizer.step()
    assert model.weight.item() != before


def test_no_momentum_is_plain_sgd() -> None:
    layer = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    optimizer = build_sgd(layer, lr=0.5, momentum=0.0, weight_decay=0.0)
    for _ in range(2):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    assert layer.weight.item() == 0.0
