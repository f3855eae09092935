"""Every mode on every model of the family: proved by the pruner, counted here from the tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import SLIM_SPECS, assert_untouched, bare, enliven, relative, snapshot
from yolox.models import build_model
from yolox.pruning import (
    PruningPlan,
    apply_plan,
    compensate_cut,
    mask_plan,
    prune_model,
    trace_groups,
)

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1

ACTS = ["silu", "mish", "relu"]
MODES: dict[str, dict[str, Any]] = {
    "global": {"ch_sparsity": 0.4},
    "target": {"target": "macs=0.6", "round_to": 2},
    "isomorphic": {"target": "params=0.6", "scope": "isomorphic"},
    "layer": {"mode": "layer", "layers": ("head.*", "backbone.backbone.*"), "ch_sparsity": 0.3},
    "ratios": {"mode": "layer", "layer_sparsity": {"*": 0.2, "head.*": 0.5}},
}


def conv_table(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int, int]]:
    """Output channels, parameters and MACs of each convolution, seen from outside."""
    seen: dict[str, tuple[int, int, int]] = {}
    hooks = [
        layer.register_forward_hook(
            lambda m, _a, out, name=name: seen.update(
                {
                    name: (
                        out.shape[1],
                        sum(p.numel() for p in m.parameters()),
                        m.weight.numel() * out[0, 0].numel(),
                    )
                }
            )
        )
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


# Every mode meets the nano, whose layers are of all kinds; the others are deeper, or a YOLOv3.
# Plans do not depend on the activation.
CASES = [
    *(("yolox-nano", mode, act) for mode, act in zip(MODES, ACTS * 2, strict=False)),
    ("yolox-tiny", "global", "mish"),
    ("yolox-tiny", "isomorphic", "silu"),
    ("yolox-s", "target", "relu"),
    ("yolox-s", "layer", "silu"),
    ("yolox-m", "ratios", "mish"),
    ("yolox-l", "isomorphic", "relu"),
    ("yolox-x", "target", "silu"),
    ("yolov3", "global", "relu"),
]


@pytest.mark.parametrize(("name", "mode", "act"), CASES)
def test_pruned_is_masked_and_the_report_is_what_is_there(name: str, mode: str, act: str) -> None:
    model = enliven(build_model(dataclasses.replace(SLIM_SPECS[name], act=act))).eval()
    before, groups = snapshot(model), trace_groups(model, X)
    config = bare(importance="l2", rounds=1, **MODES[mode])
    result = prune_model(model, X, config)
    assert_untouched(model, before)

    ready, _ = compensate_cut(model, groups, result.plan, config, X)
    with torch.no_grad():
        expected = mask_plan(ready, groups, result.plan).double()(X.double())
        assert relative(result.model.double()(X.double()), expected) < 1e-9
    result.model.float()
    counted, whole = conv_table(result.model, X), conv_table(model, X)
    for layer in result.report.layers:
        pairs = zip(whole[layer.name], counted[layer.name], strict=True)
        assert [layer.channels, layer.params, layer.macs] == list(pairs), layer.name
    parameters = [sum(p.numel() for p in m.parameters()) for m in (model, result.model)]
    assert list(result.report.params) == parameters
    for number, total in ((0, result.report.channels), (2, result.report.macs)):
        assert total == tuple(sum(row[number] for row in t.values()) for t in (whole, counted))

    # A plan in a file does it again, to the bit.
    again = PruningPlan.from_dict(result.plan.to_dict())
    replayed = apply_plan(ready, groups, again).state_dict()
    for key, value in result.model.state_dict().items():
        assert torch.equal(value, replayed[key]), key
