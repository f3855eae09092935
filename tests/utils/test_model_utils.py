"""Counting by hand, folding without change, modes put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers import SPECS
from tests.pruning.helpers import ResNet, assert_untouched, enliven, snapshot
from yolox.models import build_model
from yolox.utils.model_utils import (
    adjust_status,
    count_macs,
    count_params,
    freeze_module,
    fuse_model,
)


def test_macs_by_hand() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    macs = count_macs(model, torch.rand(1, 3, 32, 16))
    strided, depthwise, linear = 3 * 8 * 9 * 16 * 8, 8 * 9 * 16 * 8, 8 * 5
    assert macs[""] == strided + depthwise + linear
    assert macs["0"] == macs["0.0"] == strided
    assert macs["1"] == depthwise
    assert macs["4"] == linear


@pytest.mark.parametrize(
    ("name", "params_m", "gmacs", "size"),
    [
        ("yolox-nano", 0.91, 1.08 / 2, 416),
        ("yolox-tiny", 5.06, 6.45 / 2, 416),
        ("yolox-s", 9.0, 26.8 / 2, 640),
        ("yolox-x", 99.1, 281.9 / 2, 640),
    ],
)
def test_published_sizes(name: str, params_m: float, gmacs: float, size: int) -> None:
    """The numbers of the YOLOX model zoo, whose FLOPs are twice the multiply-accumulates."""
    with torch.device("meta"):
        model = build_model(SPECS[name])
    assert count_params(model) / 1e6 == pytest.approx(params_m, rel=0.01)
    macs = count_macs(model, torch.empty(1, 3, size, size, device="meta"))[""]
    # The zoo counted batch norms too, which weigh most in the depthwise nano.
    assert macs / 1e9 == pytest.approx(gmacs, rel=0.04)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_counting_works_in_any_precision_and_touches_nothing(dtype: torch.dtype) -> None:
    model = enliven(ResNet()).to(dtype).train()
    expected = count_macs(ResNet(), torch.rand(1, 3, 16, 16))
    before = snapshot(model)
    assert count_macs(model, torch.rand(1, 3, 16, 16)) == expected
    assert_untouched(model, before)
    assert model.training


def test_params_of_a_shared_layer_count_once() -> None:
    layer = nn.Linear(4, 4)
    assert count_params(nn.Sequential(layer, layer, nn.BatchNorm1d(4))) == 20 + 8


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-tiny"])
def test_folding_batch_norms_changes_no_output(name: str) -> None:
    model = enliven(build_model(SPECS[name])).train()
    before = snapshot(model)
    fused = fuse_model(model)
    assert_untouched(model, before)
    assert model.training
    assert not fused.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), model.eval()(x), rtol=1e-3, atol=1e-3)


def test_modes_are_put_back_one_by_one() -> None:
    model = ResNet().train()
    model.stages[1].bn1.eval()
    modes = [module.training for module in model.modules()]
    with adjust_status(model) as inside:
        assert inside is model
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with adjust_status(model, training=True):
        assert all(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes


def test_modes_are_put_back_after_an_error() -> None:
    model = ResNet().train()
    model.stages[1].bn1.eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(AttributeError), adjust_status(model):
        model.no_such_layer()
    assert [module.training for module in model.modules()] == modes


def test_a_part_is_frozen() -> None:
    model = ResNet().train()
    assert freeze_module(model, "stem") is model
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert not model.stem[1].training
    assert all(p.requires_grad for p in model.stages.parameters())
    assert model.stages.training
    freeze_module(model)
    assert not any(p.requires_grad for p in model.parameters())
