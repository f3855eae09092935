"""The moving average against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yolox.utils.ema import ModelEMA


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_the_average_follows_the_formula() -> None:
    torch.manual_seed(0)
    model = net()
    ema = ModelEMA(model, decay=0.9, ramp=10)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for update in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.rand(2, 3, 4, 4))  # moves the running statistics and their count
        ema.update(model)
        decay = 0.9 * (1 - math.exp(-update / 10))
        assert ema.decay == pytest.approx(decay)
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    assert ema.updates == 29
    for name, value in ema.ema.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(ema.ema[1].num_batches_tracked) == 29


def test_the_model_is_not_touched_and_the_average_is_not_trained() -> None:
    model = net().train()
    ema = ModelEMA(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ema.update(model)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in ema.ema.modules())
    assert not any(p.requires_grad for p in ema.ema.parameters())
    pointers = {value.data_ptr() for value in model.state_dict().values()}
    assert not any(value.data_ptr() in pointers for value in ema.ema.state_dict().values())


def test_a_resumed_average_goes_on_where_it_was() -> None:
    torch.manual_seed(0)
    model, ema = net(), None
    straight = ModelEMA(model, decay=0.99, ramp=20)
    for step in range(10):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
        straight.update(model)
        if step == 4:
            ema = ModelEMA(model, decay=0.99, updates=straight.updates, ramp=20)
            ema.ema.load_state_dict(straight.ema.state_dict())
        elif ema is not None:
            ema.update(model)
    assert ema is not None
    assert ema.updates == 10
    assert torch.equal(ema.ema[0].weight, straight.ema[0].weight)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"EMA decay must be in \[0, 1\)"):
        ModelEMA(net(), decay=decay)
