"""The rewritten graph is the same function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.export.helpers import MODELS, images
from tests.pruning.helpers import assert_untouched, enliven, snapshot
from yolox.export.graph import Deployed, SigmoidMish, deployed, fold_focus
from yolox.models import YOLOX, build_model, load_model
from yolox.models.network_blocks import Focus


def focuses(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Focus)]


@pytest.mark.parametrize("ksize", [1, 3, 5])
@torch.no_grad()
def test_focus_is_one_strided_convolution(ksize: int) -> None:
    focus = enliven(Focus(3, 7, ksize=ksize)).double().eval()
    before = snapshot(focus)
    x = images(2, (32, 64)).double()
    folded = fold_focus(focus)
    assert not focuses(folded)
    torch.testing.assert_close(folded(x), focus(x), rtol=1e-12, atol=1e-10)
    assert_untouched(focus, before)
    (conv,) = (module for module in folded.modules() if isinstance(module, nn.Conv2d))
    assert (conv.kernel_size, conv.stride) == ((2 * ksize, 2 * ksize), (2, 2))


@pytest.mark.parametrize(("kind", "state"), [("nano", "dense"), ("slim", "pruned")])
@torch.no_grad()
def test_a_folded_model_in_float64(kind: str, state: str, checkpoint: Callable[..., Path]) -> None:
    model = load_model(checkpoint(kind, "silu", state)).model.double()
    folded = fold_focus(model)
    assert focuses(model)
    assert not focuses(folded)
    x = images(1).double()
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_rescaled_weights_change_nothing_but_their_range() -> None:
    """A power of two: not a bit of the output moves, though the stem's weights are 256 times."""
    for spec in (MODELS["nano"], dataclasses.replace(MODELS["nano"], architecture="yolov3")):
        model = enliven(build_model(spec)).eval()
        assert isinstance(model, YOLOX)
        plain, scaled = (deployed(model, decode=True, rescale=r) for r in (False, True))
        x = images(1, (32, 32)).round()
        assert torch.equal(scaled(x), plain(x))
        first = next(p for p in model.parameters() if p.dim() == 4)
        ratios = [
            next(p for p in net.parameters() if p.dim() == 4).abs().max() for net in (scaled, plain)
        ]
        assert ratios[0] == 256 * ratios[1]
        assert first.abs().max() < 100


@torch.no_grad()
def test_mish_without_logarithm() -> None:
    x = torch.linspace(-90, 90, 20001, dtype=torch.float64)
    torch.testing.assert_close(SigmoidMish()(x), nn.Mish()(x), rtol=0, atol=1e-13)
    x = x.float()
    torch.testing.assert_close(SigmoidMish()(x), nn.Mish()(x), rtol=1e-6, atol=3e-6)


@torch.no_grad()
def test_what_is_deployed_is_a_copy_without_batch_norms(checkpoint: Callable[..., Path]) -> None:
    model = load_model(checkpoint("slim", "mish")).model
    before = snapshot(model)
    copy = deployed(model, decode=False, plain_mish=True)
    kinds = {type(module) for module in copy.modules()}
    assert not kinds & {nn.BatchNorm2d, Focus, nn.Mish}
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    x = images(1)
    expected = Deployed(model, decode=False)(x)
    torch.testing.assert_close(copy(x), expected, rtol=1e-3, atol=1e-3)
    assert_untouched(model, before)
