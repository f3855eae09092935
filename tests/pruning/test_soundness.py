"""Never accepted and wrong: each network of the zoo is pruned right, or refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import bare
from tests.pruning.zoo import DOUBTFUL, RIGHT
from yolox.pruning import Group, PruneResult, PruningError, prune_model, trace_groups

CONFIG = bare(importance="random", ch_sparsity=0.4, rounds=1, reconstruct=0, absorb=False)
X = 255 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def gone(groups: Sequence[Group], result: PruneResult) -> dict[tuple[str, str], list[int]]:
    """Removed channels by layer and axis."""
    channels: dict[tuple[str, str], list[int]] = {}
    for group in groups:
        for member in group.members:
            slots = list(result.plan.removed.get(group.name, ()))
            ids = member.index[slots].ravel().tolist()
            channels.setdefault((member.name, member.axis), []).extend(ids)
    return channels


@torch.no_grad()
def other_weights(model: nn.Module, seed: int) -> nn.Module:
    """The model with weights that nobody trained, none of them zero, and without chance."""
    generator = torch.Generator().manual_seed(100 + seed)
    other = copy.deepcopy(model).double()
    for module in other.modules():
        if hasattr(module, "p"):
            module.p = 0.0
        for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if value.is_floating_point():
                size = max(1, value[0].numel()) if value.dim() > 1 else 1
                value.copy_(torch.randn(value.shape, generator=generator) * (2 / size) ** 0.5)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_var.abs_().add_(0.3)
    return other


@torch.no_grad()
def silenced_and_cut(
    model: nn.Module, small: nn.Module, channels: dict[tuple[str, str], list[int]]
) -> tuple[nn.Module, nn.Module]:
    """The whole model whose readers see nothing of those channels, and the same weights cut."""
    silent, cut = copy.deepcopy(model), copy.deepcopy(small).double()
    for (name, axis), ids in channels.items():
        if axis == "in":
            silent.get_submodule(name).weight[:, ids] = 0
    theirs = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for key, value in (*cut.named_parameters(), *cut.named_buffers()):
        full = theirs[key].numpy()
        layer = key.rpartition(".")[0]
        for dim, axis in enumerate(("out", "in")):
            ids = channels.get((layer, axis), [])
            if ids and full.ndim > dim and full.shape[dim] > value.shape[dim]:
                full = np.delete(full, ids, axis=dim)
        value.copy_(torch.from_numpy(full.copy()))
    for module in cut.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    return silent, cut


def tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple, dict)):
        for value in output.values() if isinstance(output, dict) else output:
            yield from tensors(value)


def pictures() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(7)
    for height, scale, offset in ((16, 255, 0), (24, 2, 0), (16, 10, 240)):
        yield (
            torch.rand(3, 3, height, 16, generator=generator, dtype=torch.float64) * scale + offset
        )


def judge(model: nn.Module, result: PruneResult) -> float:
    """Largest relative difference of an output channel, over weights, pictures and modes."""
    channels = gone(trace_groups(model, X), result)
    assert channels
    worst = 0.0
    for seed in range(2):
        pair = silenced_and_cut(other_weights(model, seed), result.model, channels)
        for training in (False, True):
            for picture in pictures():
                outputs = []
                for net in copy.deepcopy(pair):
                    net.train(training)
                    for module in net.modules():
                        if isinstance(module, nn.RReLU):
                            module.eval()
                    torch.manual_seed(5)
                    try:
                        with torch.no_grad():
                            outputs.append(list(tensors(net(picture.clone()))))
                    except (RuntimeError, ValueError):
                        outputs.append(None)  # another size, or no targets
                a, b = outputs
                assert (a is None) == (b is None)
                for small, silent in zip(a or (), b or (), strict=True):
                    assert small.shape == silent.shape
                    dims = [dim for dim in range(small.dim()) if dim != 1]
                    apart, size = (small - silent).abs(), silent.abs()
                    if dims:
                        apart, size = apart.amax(dims), size.amax(dims)
                    worst = max(worst, float((apart / size.clamp(min=1e-300)).max()))
    return worst


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_trace_follows_is_pruned_right(name: str) -> None:
    torch.manual_seed(0)
    model = RIGHT[name]().eval()
    result = prune_model(model, X, CONFIG)
    assert result.report.params[1] < result.report.params[0]
    assert judge(model, result) < 1e-6


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_it_may_not_follow_is_pruned_right_or_refused(name: str) -> None:
    torch.manual_seed(0)
    model = DOUBTFUL[name]().eval()
    try:
        result = prune_model(model, X, CONFIG)
    except PruningError as refusal:
        message = str(refusal)
    else:
        assert judge(model, result) < 1e-6
        return
    assert "\n" not in message


HELD = [
    "flip",
    "index_select",
    "swapped halves",
    "flip beside",
    "gate by the mean",
    "normalised",
    "training only",
    "evaluation only",
    "flip, gamma 0",
    "flip, zero head",
    "flip, with targets",
    "flip, deep, no norm",
    "tied and transposed",
    "standardised weights",
    "neighbours",
    "plain",
    "squeeze and excite",
    "in place",
    "grouped",
    "flattened",
    "rezero",
    "zero head",
    "tied",
    "one unit twice",
    "one weight norm of many",
    "with targets",
    "deep",
]


@pytest.mark.parametrize("name", HELD)
def test_large_layers_prove_as_much_without_being_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolox.pruning.proof.held.LARGE_WEIGHT", 1)
    if name in RIGHT:
        test_what_a_trace_follows_is_pruned_right(name)
    else:
        test_what_it_may_not_follow_is_pruned_right_or_refused(name)


class Hooked(nn.Module):
    """A convolution and what may be done to it from outside."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.o = (nn.Conv2d(i, o, 1) for i, o in ((3, 8), (8, 8), (8, 5)))
        self.how = how
        if how == "output":
            self.a.register_forward_hook(lambda _layer, _args, y: y.flip(1))
        if how == "input":
            self.b.register_forward_pre_hook(lambda _layer, args: (args[0].flip(1),))

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(input=self.a(x)) if self.how == "keyword" else self.b(self.a(x))
        if self.how == "weight":
            y = y * self.b.weight.sum((0, 2, 3)).flip(0).mean()
        if self.how == "weight as it trains" and self.training:
            y = y + self.b.weight.sum((1, 2, 3))[:, None, None]
        return self.o(y)


@pytest.mark.parametrize("large", [1, 10**9])
@pytest.mark.parametrize("how", ["keyword", "output", "input", "weight", "weight as it trains"])
def test_hooks_and_other_readers_of_a_weight_are_seen(
    how: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolox.pruning.proof.held.LARGE_WEIGHT", large)
    torch.manual_seed(0)
    model = Hooked(how).eval()
    if how in ("keyword", "input", "weight as it trains"):
        assert judge(model, prune_model(model, X, CONFIG)) < 1e-6
    else:
        told = "is refused" if how == "output" else "no prunable channels.*sum of its weight"
        with pytest.raises(PruningError, match=told):
            prune_model(model, X, CONFIG)


@pytest.mark.parametrize("name", ["training only", "evaluation only"])
def test_the_judge_sees_a_cut_that_was_not_verified(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolox.pruning.pruner.verify_plan", lambda *_, **__: 0.0)
    torch.manual_seed(0)
    model = DOUBTFUL[name]().eval()
    assert judge(model, prune_model(model, X, CONFIG)) > 1e-3


def test_a_refusal_names_layer_and_op() -> None:
    for name, told in {
        "training only": r"in b\.0 \(Conv2d\) .*training.*flip.*`ignore`.*a\.0 .*through silu",
        "head added as it trains": r"in aux \(Conv2d\)",
        "head never used": r"aux\.weight, aux\.bias took part neither in evaluation nor",
        "weight norm": r"b\.0 \(its weight is computed by _WeightNorm\)",
    }.items():
        with pytest.raises(PruningError, match=told):
            prune_model(DOUBTFUL[name]().eval(), X, CONFIG)
