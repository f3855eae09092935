"""Scores against arithmetic done by hand, and against finite differences of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import (
    DenseNet,
    ResNet,
    assert_untouched,
    bare,
    enliven,
    group_of,
    snapshot,
)
from yolox.models import YOLOX, ModelSpec, build_model
from yolox.pruning import (
    CRITERIA,
    PruningError,
    TaylorScorer,
    make_scorer,
    prune_model,
    trace_groups,
)
from yolox.pruning.surgeon import SurgeonScorer


def two_layers() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 1, 1), nn.BatchNorm2d(5), nn.SiLU(), nn.Conv2d(5, 2, 3, 1, 1)
    )


def l1_scores(model: nn.Module, groups: list) -> list[Tensor]:
    return make_scorer(bare(importance="l1"))(model, groups)


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


# --- the other criteria of the weights


def by_hand() -> nn.Sequential:
    """Filters (3, 4), (0, 0) and (6, 8) with γ of 0.5, -2 and 1."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -4], [0, 0], [-6, 8]]).view(3, 2, 1, 1))
        model[1].weight.copy_(torch.tensor([0.5, -2, 1]))
    return model


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        ("l1", [7, 0, 14]),
        ("l2", [5, 0, 10]),
        ("bn", [0.5, 2, 1]),
        # Distances: 5 between the first two, sqrt(81 + 144) = 15, and 10.
        ("fpgm", [20, 15, 25]),
        # Squares 25, 0 and 100, over the sum of those that are no smaller.
        ("lamp", [25 / 125, 0, 1]),
    ],
)
@pytest.mark.parametrize("scale", ["none", "mean", "max"])
def test_a_criterion_by_hand(importance: str, expected: list[float], scale: str) -> None:
    model = by_hand()
    before = snapshot(model)
    groups = trace_groups(model, torch.rand(1, 2, 4, 4))
    (scores,) = make_scorer(bare(importance=importance, normalize=scale))(model, groups)
    divisor = {"none": 1, "mean": sum(expected) / 3, "max": max(expected)}[scale]
    torch.testing.assert_close(scores, torch.tensor(expected) / divisor)
    assert_untouched(model, before)


@pytest.mark.parametrize("how", ["sum", "mean", "max"])
@pytest.mark.parametrize("importance", ["l2", "bn"])
def test_a_residual_stage_aggregates_its_layers(importance: str, how: str) -> None:
    model = enliven(ResNet())
    with torch.no_grad():
        model.stem[1].weight[2] = -3.0
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    config = bare(importance=importance, aggregate=how, normalize="none")
    scores = make_scorer(config)(model, groups)[groups.index(group_of(groups, "stem.0"))]
    stem, last = model.stem, model.stages[0]
    for slot in range(8):
        parts = {
            "l2": [float(conv.weight[slot].detach().norm()) for conv in (stem[0], last.conv2)],
            "bn": [float(bn.weight[slot].detach().abs()) for bn in (stem[1], last.bn2)],
        }[importance]
        one = {"sum": sum(parts), "mean": sum(parts) / 2, "max": max(parts)}[how]
        assert float(scores[slot]) == pytest.approx(one, rel=1e-5)


def test_bn_takes_every_batch_norm_on_the_slot() -> None:
    """Each layer of a dense net has a batch norm of its own on the stem's channels."""
    model = enliven(DenseNet())
    (stem, *_) = groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    readable = [g for g in groups if g.name != "convs.2"]
    scores = make_scorer(bare(importance="bn"))(model, readable)
    assert stem.name == "stem"
    scales = torch.stack([bn.weight.detach()[:6].abs() for bn in model.bns])
    torch.testing.assert_close(scores[0], scales.amax(dim=0))
    summed = make_scorer(bare(importance="bn", aggregate="sum"))(model, readable)
    torch.testing.assert_close(summed[0], scales.sum(dim=0))
    # The second conv's channels are the last 4 of the 14 that the third batch norm sees.
    torch.testing.assert_close(scores[2], model.bns[2].weight.detach()[10:].abs())


def test_bn_without_batch_norm_names_the_layer() -> None:
    model = DenseNet()
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    with pytest.raises(
        PruningError, match=r"batch norm on every pruned channel: convs\.2 has none"
    ):
        make_scorer(bare(importance="bn"))(model, groups)


def test_bn_without_scales_counts_as_none() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    groups = trace_groups(model, torch.rand(1, 3, 4, 4))
    with pytest.raises(PruningError, match="batch norm"):
        make_scorer(bare(importance="bn"))(model, groups)


def test_fpgm_is_the_sum_of_distances() -> None:
    model = enliven(two_layers())
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    config = bare(importance="fpgm", normalize="none")
    (scores,) = make_scorer(config)(model, groups)
    filters = model[0].weight.detach()
    for own in range(5):
        distances = [float((filters[own] - filters[other]).norm()) for other in range(5)]
        assert float(scores[own]) == pytest.approx(sum(distances), rel=1e-5)


def test_lamp_is_the_share_of_what_is_no_smaller() -> None:
    model = enliven(ResNet())
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))
    all_scores = make_scorer(bare(importance="lamp"))(model, groups)
    for group, scores in zip(groups, all_scores, strict=True):
        squares_of = [
            sum(
                float(model.state_dict()[f"{m.name}.weight"][m.index[slot]].square().sum())
                for m in group.producers
            )
            for slot in range(group.size)
        ]
        for slot, own in enumerate(squares_of):
            rest = sum(other for other in squares_of if other >= own)
            assert float(scores[slot]) == pytest.approx(own / rest, rel=1e-4)
        assert float(scores.max()) == 1


def test_random_is_decided_by_its_seed() -> None:
    model = ResNet()
    groups = trace_groups(model, torch.rand(1, 3, 16, 16))

    def scores(seed: int) -> Tensor:
        return torch.cat(make_scorer(bare(importance="random", seed=seed))(model, groups))

    assert torch.equal(scores(3), scores(3))
    assert not torch.equal(scores(3), scores(4))
    assert len(scores(3).unique()) == sum(group.size for group in groups)


# --- criteria of the data


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
    slopes = gate_slopes_at_readers(model, [*model.convs, model.last], batch)
    torch.testing.assert_close(scores[0], slopes.square(), rtol=1e-3, atol=1e-9)


def gate_slopes_at_readers(model: DenseNet, readers: Sequence[nn.Module], batch: Tensor) -> Tensor:
    """Slopes of the stem's channels, gated where these convs read them."""
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
                for conv in readers
            ]
            with torch.no_grad():
                losses.append(squares(model, batch.double()))
            for hook in hooks:
                hook.remove()
        slopes[channel] = (losses[0] - losses[1]) / 2e-5
    return slopes


@pytest.mark.parametrize("how", ["mean", "max"])
def test_taylor_aggregates_the_squared_slope_of_each_reader(how: str) -> None:
    model = enliven(DenseNet()).eval()
    batch = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    groups = trace_groups(model, batch)
    scores = TaylorScorer(batches=[batch], loss=squares, aggregate=how)(model, groups)
    alone = torch.stack(
        [gate_slopes_at_readers(model, [conv], batch) for conv in (*model.convs, model.last)]
    ).square()
    expected = alone.mean(dim=0) if how == "mean" else alone.amax(dim=0)
    torch.testing.assert_close(scores[0], expected, rtol=1e-3, atol=1e-9)


def test_fisher_is_the_mean_over_images_of_the_squared_slope() -> None:
    model = enliven(two_layers()).eval()
    images = torch.randn(3, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    groups = trace_groups(model, images[0])

    def scores(importance: str, batches: Sequence[Tensor]) -> Tensor:
        config = bare(importance=importance)
        return make_scorer(config, batches, squares)(model, groups)[0]

    fisher = scores("fisher", list(images))
    torch.testing.assert_close(fisher, scores("taylor", list(images)), rtol=0, atol=0)
    each = torch.stack([gate_slopes(model, model[2], image, 5) for image in images])
    torch.testing.assert_close(fisher, each.square().mean(dim=0), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("scale", ["mean", "max"])
def test_taylor_scores_are_normalised_group_by_group(scale: str) -> None:
    model = enliven(ResNet()).eval()
    batch = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    groups = trace_groups(model, batch[:1])

    def scores(how: str) -> list[Tensor]:
        config = bare(importance="taylor", normalize=how)
        return make_scorer(config, [batch], squares)(model, groups)

    for plain, scaled in zip(scores("none"), scores(scale), strict=True):
        divisor = plain.mean() if scale == "mean" else plain.max()
        torch.testing.assert_close(scaled, plain / divisor)


@pytest.mark.parametrize("importance", CRITERIA)
@pytest.mark.parametrize("training", [True, False])
def test_a_criterion_leaves_the_model_as_it_is(importance: str, training: bool) -> None:
    model = enliven(ResNet()).train(training)
    model.fc.requires_grad_(False)
    before = snapshot(model)
    batch = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    groups = trace_groups(model, batch[:1])
    scores = make_scorer(bare(importance=importance), [batch], squares)(model, groups)
    assert_untouched(model, before)
    assert all(module.training is training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.fc.parameters()] == [False, False]
    assert all(p.requires_grad for p in model.stages.parameters())
    for group, part in zip(groups, scores, strict=True):
        assert part.shape == (group.size,)
        assert part.dtype == torch.float32
        assert not part.requires_grad
        assert (part >= 0).all()


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


@pytest.mark.parametrize(
    ("mode", "importance"), [("conv", "taylor"), ("layer", "l1"), ("global", "taylor")]
)
def test_every_mode_on_a_detector(mode: str, importance: str) -> None:
    model = enliven(build_model(ModelSpec(depth=0.33, width=0.25, num_classes=3)))
    before = snapshot(model)
    layers = {
        "conv": ("backbone.backbone.dark3.1.conv1", "head.stems.1.conv"),
        "layer": ("backbone.C3_*",),
        "global": (),
    }[mode]
    config = bare(mode=mode, layers=layers, importance=importance, ch_sparsity=0.25)
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


@pytest.mark.parametrize("kind", [TaylorScorer, SurgeonScorer])
def test_no_batches_or_a_loss_that_is_not_finite_is_an_error(kind: Any) -> None:
    model = two_layers()
    groups = trace_groups(model, torch.rand(1, 3, 8, 8))
    odd = torch.full((1, 3, 8, 8), torch.nan)
    for batches, words in (([], "there are none"), ([odd], "is nan on calibration batch 0")):
        with pytest.raises(PruningError, match=words):
            kind(batches=batches, loss=squares)(model, groups)


def test_taylor_without_data_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs real images"):
        prune_model(two_layers(), torch.rand(1, 3, 8, 8), bare(importance="taylor"))
