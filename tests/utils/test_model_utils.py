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
    copy_model,
    count_macs,
    count_params,
    freeze_module,
    fuse_model,
    get_model_info,
    is_parallel,
    load_ckpt,
    replace_module,
)


def test_copy_model_shares_nothing_and_keeps_hooks() -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    calls: list[nn.Module] = []
    model.head.register_forward_hook(lambda layer, _args, _out: calls.append(layer))
    before = snapshot(model)
    copied = copy_model(model)
    assert_untouched(copied, before)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    copied.backbone.register_forward_hook(lambda layer, _args, _out: calls.append(layer))
    assert_untouched(model, before)
    images = torch.zeros(1, 3, 64, 64)
    for whole, called in ((model, [model.head]), (copied, [copied.backbone, copied.head])):
        calls.clear()
        whole.eval()(images)
        assert calls == called


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


def test_parts_are_frozen_by_what_their_names_hold() -> None:
    model = ResNet().train()
    assert freeze_module(model, "stem") is model
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert not model.stem[1].training
    assert all(p.requires_grad for p in model.stages.parameters())
    assert model.stages.training
    freeze_module(model, ".bn1")
    assert not model.stages[0].bn1.training
    assert model.stages[0].training
    assert not model.stages[1].bn1.weight.requires_grad
    assert model.stages[1].bn2.weight.requires_grad
    freeze_module(model)
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_modules_are_replaced_by_type() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert replace_module(model, nn.ReLU, nn.SiLU) is model
    assert [type(m) for m in model.modules() if not list(m.children())] == [
        nn.SiLU,
        nn.Linear,
        nn.SiLU,
    ]
    seen: list[nn.Module] = []

    def make(old: nn.Module, new: type[nn.Module]) -> nn.Module:
        seen.append(old)
        return new(2, 3)  # type: ignore[call-arg]

    replace_module(model, nn.Linear, nn.Linear, make)
    assert [type(m) for m in seen] == [nn.Linear]
    assert model[1][0].out_features == 3
    assert isinstance(replace_module(nn.ReLU(), nn.ReLU, nn.Mish), nn.Mish)


def test_model_info_counts_two_flops_a_mac() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False, padding=1))
    assert get_model_info(model, (100, 200)) == "Params: 0.00M, Gflops: 0.01"
    assert 2 * 3 * 8 * 9 * 100 * 200 == 8640000


def test_what_fits_of_a_state_dict_is_loaded() -> None:
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {"weight": other.weight.detach(), "bias": torch.zeros(4), "more": torch.zeros(1)}
    bias = model.bias.detach().clone()
    assert load_ckpt(model, state) is model
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, bias)


def test_a_wrapped_model_is_parallel() -> None:
    assert is_parallel(nn.DataParallel(nn.Linear(1, 1)))
    assert not is_parallel(nn.Linear(1, 1))
