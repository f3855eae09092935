"""Scores against arithmetic done by hand, and against finite differences of a gate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import (
    DenseNet,
    ResNet,
    assert_untouched,
    enliven,
    group_of,
    snapshot,
)
from yolox.models import YOLOX, ModelSpec, build_model
from yolox.pruning import PruneConfig, TaylorScorer, make_scorer, prune_model, trace_groups


def two_layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 1, 1), nn.BatchNorm2d(5), nn.SiLU(), nn.Conv2d(5, 2, 3, 1, 1)
    )


def l1_scores(model: nn.Module, groups: list) -> list[Tensor]:
    return make_scorer(PruneConfig(importance="l1"))(model, groups)


def squares(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def test_l1_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2], [0, 0.5], [-4, 4]]).view(3, 2, 1, 1))
    groups = trace_groups(model, torch.rand(1, 2, 4, 4))
    # Sums 3, 0.5 and 8, over their mean.
    torch.testing.assert_close(l1_scores(model, groups)[0], torch.tensor([3, 0.5, 8]) * 3 / 11.5)


def test_l1_adds_up_the_convs_of_a_residual_stage() -> None:
    model = enliven(ResNet())
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    weights = [model.stem[0].weight, model.stages[0].conv2.weight]
    total = sum(weight.detach().abs().sum(dim=(1, 2, 3)) for weight in weights)
    scores = l1_scores(model, groups)[groups.index(group_of(groups, "stem.0"))]
    torch.testing.assert_close(scores, total / total.mean())


def test_l1_of_a_layer_of_zeros_is_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    nn.init.zeros_(model[0].weight)
    assert not l1_scores(model, trace_groups(model, torch.rand(1, 3, 4, 4)))[0].any()


def gate_slopes(model: nn.Module, layer: nn.Module, batch: Tensor, size: int) -> Tensor:
    """d loss / d gate at gate 1, by central differences, gates at the layer's output."""
    model = model.double().eval()
    slopes = torch.zeros(size)
    for channel in range(size):
        losses = []
        for gate in (1 + 1e-5, 1 - 1e-5):
            factor = torch.ones(size, 1, 1, dtype=torch.float64)
            factor[channel] = gate
            hook = layer.register_forward_hook(lambda _m, _a, out, factor=factor: out * factor)
            with torch.no_grad():
                losses.append(squares(model, batch.double()))
            hook.remove()
        slopes[channel] = (losses[0] - losses[1]) / 2e-5
    return slopes


def test_taylor_is_the_squared_slope_of_the_gate() -> None:
    model = enliven(two_layers()).eval()
    batches = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    groups = trace_groups(model, batches[0])
    (scores,) = TaylorScorer(batches=batches, loss=squares)(model, groups)
    slopes = torch.stack([gate_slopes(model, model[2], batch, 5) for batch in batches])
    torch.testing.assert_close(scores, slopes.square().mean(dim=0), rtol=1e-3, atol=1e-9)


def test_taylor_adds_up_all_readers() -> None:
    """A stem read by three convs has one slope: the readers' slopes are added, then squared."""
    model = enliven(DenseNet()).eval()
    batch = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    groups = trace_groups(model, batch)
    scores = TaylorScorer(batches=[batch], loss=squares)(model, groups)
    model.last.requires_grad_(False)
    expected = gate_slopes_at_readers(model, batch)
    torch.testing.assert_close(scores[0], expected, rtol=1e-3, atol=1e-9)


def gate_slopes_at_readers(model: DenseNet, batch: Tensor) -> Tensor:
    """Squared slopes of the stem's channels, gated where a conv reads them."""
    model = model.double().eval()
    slopes = torch.zeros(6)
    for channel in range(6):
        losses = []
        for gate in (1 + 1e-5, 1 - 1e-5):
            hooks = [
                conv.register_forward_pre_hook(
                    lambda _m, args, g=gate, c=channel: (
                        torch.cat(
                            (args[0][:, :c], args[0][:, c : c + 1] * g, args[0][:, c + 1 :]), 1
                        ),
                    )
                )
                for conv in (*model.convs, model.last)
            ]
            with torch.no_grad():
                losses.append(squares(model, batch.double()))
            for hook in hooks:
                hook.remove()
        slopes[channel] = (losses[0] - losses[1]) / 2e-5
    return slopes.square()


@pytest.mark.parametrize("channel", [0, 3])
def test_a_channel_that_nothing_reads_scores_lowest(channel: int) -> None:
    model = enliven(two_layers())
    with torch.no_grad():
        model[3].weight[:, channel] = 0
    batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    scorer = TaylorScorer(batches=[batch], loss=squares)
    (scores,) = scorer(model, trace_groups(model, batch))
    assert scores[channel] == 0
    assert int(scores.argmin()) == channel
    assert int((scores == 0).sum()) == 1


def detection_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[[0.0, 20, 24, 16, 20], [2, 44, 40, 30, 24], [0, 0, 0, 0, 0]]])
    return [(torch.rand(1, 3, 64, 64, generator=generator) * 255, labels) for _ in range(count)]


def detection_loss(model: YOLOX, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model.loss(*batch)["total_loss"]


@pytest.mark.parametrize("mode", ["conv", "layer", "global"])
@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_every_mode_on_a_detector(mode: str, importance: str) -> None:
    model = enliven(build_model(ModelSpec(depth=0.33, width=0.25, num_classes=3)))
    before = snapshot(model)
    layers = {
        "conv": ("backbone.backbone.dark3.1.conv1", "head.stems.1.conv"),
        "layer": ("backbone.C3_*",),
        "global": (),
    }[mode]
    config = PruneConfig(mode=mode, layers=layers, importance=importance, ch_sparsity=0.25)
    result = prune_model(
        model,
        torch.rand(1, 3, 64, 64),
        config,
        batches=detection_batches(2),
        loss=detection_loss,
    )
    assert_untouched(model, before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert result.report.difference < 1e-9
    assert result.report.params[1] < result.report.params[0]
    if mode != "global":
        roots = {"conv": ("backbone.backbone.dark3.1", "head.stems.1"), "layer": ("backbone.C3_",)}
        assert all(name.startswith(roots[mode]) for name in result.plan.removed)
        assert all(
            len(gone) / result.plan.sizes[name] == pytest.approx(0.25, abs=0.5 / 8)
            for name, gone in result.plan.removed.items()
        )


def test_taylor_does_not_depend_on_mode_precision_or_frozen_weights() -> None:
    model = enliven(build_model(SPECS["yolox-nano"])).eval()
    groups = trace_groups(model, torch.rand(1, 3, 64, 64))
    scorer = TaylorScorer(batches=detection_batches(1), loss=detection_loss)
    expected = scorer(model, groups)
    with torch.no_grad():
        again = scorer(model.train().requires_grad_(False), groups)
    for a, b in zip(expected, again, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
        assert (a >= 0).all()


def test_no_batches_is_an_error() -> None:
    model = two_layers()
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="at least one batch"):
        TaylorScorer(batches=[], loss=squares)(model, groups)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model = two_layers()
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    scorer = TaylorScorer(batches=[torch.full((1, 3, 8, 8), torch.nan)], loss=squares)
    with pytest.raises(ValueError, match="loss is nan on batch 0"):
        scorer(model, groups)


def test_taylor_without_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs real images"):
        prune_model(two_layers(), torch.rand(1, 3, 8, 8), PruneConfig(importance="taylor"))
