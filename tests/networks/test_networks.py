"""Networks of other people: pruned to a ratio and to half of the MACs, and proved."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.networks.networks import NETWORKS, REFUSED
from tests.pruning.helpers import bare
from yolox.pruning import (
    Group,
    PruningError,
    apply_plan,
    plan_pruning,
    prune_model,
    trace_groups,
)
from yolox.pruning.proof.verify import verify_plan
from yolox.utils.model_utils import count_macs

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def prunable_share(model: nn.Module, groups: list[Group]) -> float:
    """Of the output channels of all convolutions and linear layers, those that can be pruned."""
    prunable = {(m.name, channel) for g in groups for m in g.producers for channel in m.index.flat}
    return len(prunable) / sum(len(m.weight) for m in model.modules() if isinstance(m, LAYERS))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_pruned_to_a_ratio_and_to_half_its_macs(name: str) -> None:
    network = NETWORKS[name]
    torch.manual_seed(0)
    model = network.make().eval()
    x = torch.rand(1, 3, network.size, network.size)
    groups = trace_groups(model, x)
    assert prunable_share(model, groups) >= network.share

    channels = sum(group.size * group.channels_per_slot for group in groups)
    plan = plan_pruning(model, groups, bare(importance="l1", ch_sparsity=0.3, rounds=1))
    gone = sum(len(plan.removed.get(g.name, ())) * g.channels_per_slot for g in groups)
    assert gone / channels == pytest.approx(0.3, abs=0.01)
    assert verify_plan(model, groups, plan, x) < 1e-6

    half = bare(importance="l1", target="macs=0.5", rounds=1)
    plan = plan_pruning(model, groups, half, count_input=x)
    small = apply_plan(model, groups, plan)
    assert count_macs(small, x)[""] / count_macs(model, x)[""] == pytest.approx(0.5, abs=0.01)
    assert verify_plan(model, groups, plan, x, pruned=small) < 1e-6


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_be_pruned_is_refused_with_what_keeps_its_channels(name: str) -> None:
    network, reason = REFUSED[name]
    torch.manual_seed(0)
    model = network.make().eval()
    x = torch.rand(1, 3, network.size, network.size)
    with pytest.raises(PruningError, match=reason):
        prune_model(model, x, bare(importance="l1", target="macs=0.5", rounds=1))
