"""Prune, save, load, prune again; and what the report says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from tests.pruning.helpers import SLIM_SPECS, ResNet, bare, enliven
from yolox.models import build_model, checkpoint_payload, load_model
from yolox.pruning import (
    ModelFigures,
    PruneResult,
    comparison_table,
    measure_latency,
    prune_model,
)
from yolox.utils.checkpoint import save_checkpoint

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def assert_same(a: nn.Module, b: nn.Module) -> None:
    """Same tensors, same outputs, bit for bit."""
    theirs = b.state_dict()
    assert list(a.state_dict()) == list(theirs)
    for name, value in a.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    with torch.inference_mode():
        assert torch.equal(a.eval()(X), b.eval()(X))


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-m"])
def test_a_pruned_model_is_rebuilt_from_its_file_and_pruned_again(
    name: str, tmp_path: Path
) -> None:
    spec, path = SLIM_SPECS[name], tmp_path / "pruned.pth"
    model = enliven(build_model(spec))
    provenance: list[dict] = []
    widths = [sum(p.numel() for p in model.parameters())]
    for ratio in (0.4, 0.3):
        result = prune_model(model, X, bare(ch_sparsity=ratio, importance="l1"))
        provenance.append({"plan": result.plan.to_dict(), "report": result.report.to_dict()})
        save_checkpoint(path, checkpoint_payload(result.model, spec, provenance))
        loaded = load_model(path)
        assert loaded.is_pruned
        assert loaded.spec == spec
        assert loaded.pruning == provenance
        assert_same(loaded.model, result.model)
        assert all(p.requires_grad and p.is_leaf for p in loaded.model.parameters())
        widths.append(sum(p.numel() for p in loaded.model.parameters()))
        model = loaded.model
    assert widths[0] > widths[1] > widths[2]


def test_a_pruned_model_saved_without_provenance_loads_too(tmp_path: Path) -> None:
    spec = SPECS["yolox-nano"]
    small = prune_model(enliven(build_model(spec)), X, bare(importance="l1")).model
    save_checkpoint(tmp_path / "pruned.pth", checkpoint_payload(small, spec))
    assert_same(load_model(tmp_path / "pruned.pth").model, small)


@pytest.fixture(scope="module")
def pruned() -> tuple[nn.Module, PruneResult]:
    model = enliven(build_model(SPECS["yolox-nano"]))
    return model, prune_model(model, X, bare(ch_sparsity=0.5, importance="l1"))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv_macs(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Weight elements times output positions of every convolution, seen by hooks."""
    macs: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(
            lambda m, _a, out, name=name: macs.update({name: m.weight.numel() * out[0, 0].numel()})
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return macs


def test_the_report_counts_what_is_there(pruned: tuple[nn.Module, PruneResult]) -> None:
    model, result = pruned
    report = result.report
    before, after = conv_macs(model, X), conv_macs(result.model, X)
    assert report.params == (count(model), count(result.model))
    assert report.macs == (sum(before.values()), sum(after.values()))
    assert report.input_shape == (1, 3, 64, 64)
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert [layer.name for layer in report.layers] == convs
    for layer in report.layers:
        old, new = model.get_submodule(layer.name), result.model.get_submodule(layer.name)
        assert layer.channels == (old.weight.shape[0], new.weight.shape[0])
        assert layer.params == (count(old), count(new))
        assert layer.macs == (before[layer.name], after[layer.name])
    gone = report.channels[0] - report.channels[1]
    assert gone > 0
    assert report.to_dict()["macs"] == list(report.macs)


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_a_target_is_met_and_hardly_more(kind: str) -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    config = bare(target=f"{kind}=0.6", importance="l1")
    report = prune_model(model, X, config).report
    before, after = report.params if kind == "params" else report.macs
    assert 0.57 < after / before <= 0.61


def test_macs_are_counted_at_the_size_asked_for() -> None:
    model = enliven(build_model(SPECS["yolox-nano"]))
    large = torch.rand(1, 3, 128, 64)
    config = bare(importance="l1")
    report = prune_model(model, X, config, count_input=large).report
    assert report.input_shape == (1, 3, 128, 64)
    assert report.macs[0] == sum(conv_macs(model, large).values())


def test_the_table_lists_changed_layers_only() -> None:
    config = bare(mode="conv", layers=("stages.0.conv1",), importance="l1")
    table = prune_model(enliven(ResNet()), X, config).report.table()
    assert list(table.columns[0].cells) == ["stages.0.conv1", "stages.0.conv2"]
    assert "MACs at 64×64" in str(table.columns[3].header)


def test_the_comparison_is_relative_to_the_first() -> None:
    rows = [
        ModelFigures(label=label, params=p, macs=10**9, file_bytes=10**6, latency_ms=ms, ap50_95=ap)
        for label, p, ms, ap in (("dense", 4_000_000, 20.0, 0.4), ("pruned", 1_000_000, 8.0, None))
    ]
    table = comparison_table(rows)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["params"] == ["4.00 M (100%)", "1.00 M (25%)"]
    assert cells["latency"] == ["20.0 ms", "8.0 ms (2.50 × as fast)"]
    assert cells["AP50-95"] == ["0.400", "–"]


def test_latency_is_a_positive_time_a_model_and_leaves_models_alone() -> None:
    models = [enliven(ResNet()).train(), enliven(ResNet()).train()]
    times = measure_latency(models, torch.rand(1, 3, 16, 16), runs=2, warmup=0)
    assert len(times) == 2
    assert all(time > 0 for time in times)
    assert all(model.training for model in models)
