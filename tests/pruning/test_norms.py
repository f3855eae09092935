"""Batch norms after a cut: the same model in evaluation, and nearly that one in training."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import bare, enliven, plan_of, snapshot
from yolox.core.statistics import retake_statistics
from yolox.models.network_blocks import BaseConv
from yolox.pruning import Group, PruningPlan, prune_model
from yolox.pruning.norms import norm_moments, settle_norms
from yolox.pruning.reconstruct import refit
from yolox.pruning.surgery import mask_plan
from yolox.pruning.tracing.trace import trace_groups

Cut = tuple[nn.Module, nn.Module, nn.Module]  # the whole model; refitted; that one masked


def images(count: int, size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def outputs(model: nn.Module, x: Tensor, *, training: bool) -> Tensor:
    """What a model puts out, flat, with the statistics of the batch or the running ones."""
    model = copy.deepcopy(model).train(training)
    with torch.no_grad():
        return model(x).flatten()


def error(found: Tensor, wanted: Tensor) -> float:
    """Mean squared difference, over the variance of what is wanted."""
    return float((found - wanted).square().mean() / wanted.var())


@pytest.fixture(scope="module")
def planned() -> tuple[nn.Module, list[Group], PruningPlan]:
    """A chain whose statistics are of these images, and a third of all but the first channels."""
    widths = (3, 16, 24, 24, 24)
    units = [BaseConv(a, b, 3, 1) for a, b in itertools.pairwise(widths)]
    whole = enliven(nn.Sequential(*units, nn.Conv2d(24, 4, 1))).train()
    x = images(8)
    retake_statistics(whole, whole, [x])
    whole.eval()
    groups = trace_groups(whole, x[:1])
    late = [group for group in groups if group.name != "0.conv"]
    plan = plan_of(groups, {group.name: tuple(range(0, group.size, 3)) for group in late})
    return whole, groups, plan


@pytest.fixture(scope="module")
def cut(planned: tuple[nn.Module, list[Group], PruningPlan]) -> Cut:
    whole, groups, plan = planned
    fitted = refit(whole, groups, plan, images(8))
    return whole, fitted, mask_plan(fitted, groups, plan)


def settled(cut: Cut) -> nn.Module:
    whole, _, masked = cut
    model = copy.deepcopy(masked)
    settle_norms(model, whole, masked, images(8))
    return model


def test_settled_norms_compute_the_same_in_evaluation(cut: Cut) -> None:
    for x in (images(8), images(2, seed=5)):
        before, after = (outputs(model, x, training=False) for model in (cut[2], settled(cut)))
        assert error(after, before) < 1e-10


def test_settled_norms_compute_nearly_the_same_in_training(cut: Cut) -> None:
    x = images(8)
    wanted = outputs(cut[2], x, training=False)
    assert error(outputs(settled(cut), x, training=True), wanted) < 1e-6
    assert error(outputs(cut[2], x, training=True), wanted) > 1e-3


def test_compensation_ends_with_settled_norms(
    planned: tuple[nn.Module, list[Group], PruningPlan],
) -> None:
    x = images(8)
    config = bare(importance="l1", reconstruct=8)
    pruned = prune_model(planned[0], x[:1], config, images=x, plan=planned[2]).model
    wanted = outputs(pruned, x, training=False)
    assert error(outputs(pruned, x, training=True), wanted) < 1e-6


def test_settled_statistics_are_those_of_the_inputs(cut: Cut) -> None:
    model = settled(cut)
    for name, (mean, variance) in norm_moments(model, images(8)).items():
        norm = model.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-3, atol=1e-4)


def test_settled_statistics_stay_those_of_the_images_of_training(cut: Cut) -> None:
    """Those are augmented: their mean and variance are a little off from those of these images."""
    whole, _, masked = cut
    whole, masked = copy.deepcopy(whole), copy.deepcopy(masked)
    for model in (whole, masked):
        model[2].bn.running_var.mul_(1.5)
    model = copy.deepcopy(masked)
    settle_norms(model, whole, masked, images(8))
    variance = norm_moments(masked, images(8))["2.bn"][1]
    torch.testing.assert_close(
        model[2].bn.running_var.double(), 1.5 * variance, rtol=0.02, atol=1e-3
    )


def test_settled_statistics_that_lagged_are_those_of_the_inputs(cut: Cut) -> None:
    whole, _, masked = cut
    whole, masked = copy.deepcopy(whole), copy.deepcopy(masked)
    for model in (whole, masked):
        model[2].bn.running_var.mul_(1e-3)
    model = copy.deepcopy(masked)
    settle_norms(model, whole, masked, images(8))
    variance = norm_moments(masked, images(8))["2.bn"][1]
    torch.testing.assert_close(model[2].bn.running_var.double(), variance, rtol=1e-3, atol=1e-6)
    x = images(2, seed=3)
    wanted = outputs(masked, x, training=False)
    assert error(outputs(model, x, training=False), wanted) < 1e-9


def test_settling_leaves_alone_what_no_cut_reached(cut: Cut) -> None:
    whole, fitted, _ = cut
    model = copy.deepcopy(whole)
    settle_norms(model, whole, copy.deepcopy(whole), images(8))
    for name, value in snapshot(whole).items():
        assert torch.equal(model.state_dict()[name], value), name
    changed = settled(cut).state_dict()
    for name in [name for name in changed if name.startswith("0.")]:
        assert torch.equal(changed[name], fitted.state_dict()[name]), name
    assert not torch.equal(changed["2.bn.running_var"], fitted.state_dict()["2.bn.running_var"])


def test_settling_passes_over_norms_without_a_scale_of_their_own() -> None:
    shared = nn.BatchNorm2d(4)
    whole = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), shared, nn.ReLU(), shared
    ).eval()
    masked = copy.deepcopy(whole)
    with torch.no_grad():
        masked[0].weight.mul_(2)
    model = copy.deepcopy(masked)
    settle_norms(model, whole, masked, images(2, 16))
    for name, value in masked.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
