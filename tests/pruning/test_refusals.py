"""What cannot be pruned is refused in one sentence, and what is only unusual is pruned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pruning.helpers import bare, enliven
from yolox.pruning import PruningError, prune_model, trace_groups

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Three convolutions, something after the first, and whatever is made of their output."""

    def __init__(
        self,
        inner: Callable[[Tensor], Tensor] | None = None,
        result: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.inner = inner or nn.Identity()
        self.result = result or nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.result(self.o(self.b(self.inner(self.a(x))).relu()))


class Kept:
    """An output that is no tensor, list or dictionary."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def with_attribute(value: Any) -> nn.Module:
    model = Net()
    model.kept = value
    return model


SCALED = (torch.ones(1, requires_grad=True) * 2,)

REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "no values": (lambda: Net().to("meta"), X, "cannot be copied.*meta"),
    "a lock": (lambda: with_attribute(threading.Lock()), X, "cannot be copied.*lock"),
    "a tensor of a graph": (lambda: with_attribute(SCALED), X, "cannot be copied.*deepcopy"),
    "no shapes yet": (lambda: nn.LazyConv2d(8, 1), X, "cannot be copied.*uninitialized"),
    "a dictionary as input": (Net, {"x": X}, "the example input is a dict, expected one tensor"),
    "nothing returned": (lambda: Net(result=lambda y: None), X, "returns a NoneType"),
    "an object returned": (lambda: Net(result=Kept), X, "returns a Kept in which no tensor"),
    "no layers": (nn.ReLU, X, "no prunable channels: none of its layers"),
    "scripted": (lambda: torch.jit.script(nn.Conv2d(3, 8, 1)), X, "none of its layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused_in_one_sentence(name: str) -> None:
    make, example, told = REFUSED[name]
    with pytest.raises(PruningError, match=told) as caught:
        trace_groups(make(), example)
    assert "\n" not in str(caught.value)


UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    "a scripted activation": lambda: Net(torch.jit.script(nn.SiLU())),
    "a scripted layer": lambda: Net(torch.jit.script(nn.Conv2d(8, 8, 1))),
    "values of NumPy": lambda: Net(lambda x: torch.from_numpy(x.detach().numpy() + 1)),
    "a list with a dictionary": lambda: Net(result=lambda y: [y, {"none": None}]),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_only_unusual_is_pruned(name: str) -> None:
    result = prune_model(enliven(UNUSUAL[name]()).eval(), X, bare(importance="l1", ch_sparsity=0.4))
    assert result.model.b.out_channels < 8
