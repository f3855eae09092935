"""Which channels meet: each operation between layers, and random cuts through it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.pruning.helpers import enliven, plan_of, random_plan
from yolox.pruning import Group, PruningError, trace_groups
from yolox.pruning.balance import bundles
from yolox.pruning.proof.verify import verify_plan

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
C = 12


class Between(nn.Module):
    """Two convolutions a and b of as many channels, what is done with them, and a reader."""

    def __init__(self, between: Callable[..., Tensor], out: int = C, **layers: nn.Module) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, C, 3, 1, 1), nn.Conv2d(3, C, 3, 1, 1)
        self.between = between
        self.layers = nn.ModuleDict(layers)
        self.read, self.last = nn.Conv2d(out, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(self.a(x).relu(), self.b(x).relu(), **self.layers)
        return self.last(self.read(y).relu())


class Frozen(nn.Module):
    """A batch norm whose scales are buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.5), ("bias", 0.2), ("running_mean", 0.1)):
            self.register_buffer(name, torch.full((channels,), value))
        self.register_buffer("running_var", torch.linspace(0.5, 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Gamma(nn.Module):
    """One bare value a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def shuffled(a: Tensor, b: Tensor) -> Tensor:
    y = torch.cat((a, b), 1)
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def halves_swapped(a: Tensor, b: Tensor) -> Tensor:
    left, right = a.chunk(2, 1)
    return torch.cat((right, left, b), 1)


def gated(a: Tensor, b: Tensor) -> Tensor:
    left, right = a.chunk(2, 1)
    return left * right.sigmoid()


def computed_halves(a: Tensor, b: Tensor) -> Tensor:
    half = a.shape[1] // 2
    return torch.cat((a[:, :half] + 1, a[:, half:]), 1)


def attention(a: Tensor, b: Tensor) -> Tensor:
    weights = (a.flatten(2) @ b.flatten(2).transpose(1, 2)).softmax(-1)
    return (weights @ a.flatten(2)).view_as(a) + b


# What each group's slots stand for: the channels of a and b that a slot takes, by slot.
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "add": (lambda: Between(lambda a, b: a + b), {"a": C, "read": 6}),
    "cat": (lambda: Between(lambda a, b: torch.cat((a, b), 1), 2 * C), {"a": C, "b": C, "read": 6}),
    "flip": (lambda: Between(lambda a, b: a.flip(1) + b), {"a": C, "read": 6}),
    "repeat": (lambda: Between(lambda a, b: a.repeat(1, 2, 1, 1), 2 * C), {"a": C, "read": 6}),
    "halves swapped": (
        lambda: Between(halves_swapped, 2 * C),
        {"a": C // 2, "a#2": C // 2, "b": C, "read": 6},
    ),
    "halves multiplied": (lambda: Between(gated, C // 2), {"a": C // 2, "read": 6}),
    "halves by computed slices": (
        lambda: Between(computed_halves),
        {"a": C // 2, "a#2": C // 2, "read": 6},
    ),
    "shuffle": (lambda: Between(shuffled, 2 * C), {"a": C, "read": 6}),
    "channel_shuffle": (
        lambda: Between(lambda a, b: F.channel_shuffle(a, 3)),
        {"a": C // 3, "read": 6},
    ),
    "pixel_shuffle": (
        lambda: Between(lambda a, b: F.pixel_shuffle(a, 2), C // 4),
        {"a": C // 4, "read": 6},
    ),
    "pixel_unshuffle": (
        lambda: Between(lambda a, b: F.pixel_unshuffle(a, 2), 4 * C),
        {"a": C, "read": 6},
    ),
    "spatial slices, beside each other": (
        lambda: Between(lambda a, b: torch.cat((a[..., ::2], b[..., 1::2]), 1), 2 * C),
        {"a": C, "b": C, "read": 6},
    ),
    "pooled, enlarged and padded": (
        lambda: Between(
            lambda a, b: F.pad(F.interpolate(F.max_pool2d(a, 2), scale_factor=2), [1] * 4)
        ),
        {"a": C, "read": 6},
    ),
    "channels last": (
        lambda: Between(lambda a, b: a.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) + b),
        {"a": C, "read": 6},
    ),
    "gate of its own mean": (
        lambda: Between(lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid()),
        {"a": C, "read": 6},
    ),
    "gate of one channel": (
        lambda: Between(lambda a, b, one: a * one(b).sigmoid(), one=nn.Conv2d(C, 1, 1)),
        {"a": C, "b": C, "read": 6},
    ),
    "frozen batch norm": (lambda: Between(lambda a, b, n: n(a), n=Frozen(C)), {"a": C, "read": 6}),
    "slopes": (lambda: Between(lambda a, b, n: n(a - 1), n=nn.PReLU(C)), {"a": C, "read": 6}),
    "grouped": (
        lambda: Between(lambda a, b, n: n(a), 2 * C, n=nn.Conv2d(C, 2 * C, 1, groups=4)),
        {"a": 4, "read": 6},
    ),
    "depthwise, twice as many": (
        lambda: Between(lambda a, b, n: n(a), 2 * C, n=nn.Conv2d(C, 2 * C, 1, groups=C)),
        {"a": C, "read": 6},
    ),
    "stacked, channel beside channel": (
        lambda: Between(lambda a, b: torch.stack((a, b), 2).flatten(1, 2), 2 * C),
        {"a": C, "read": 6},
    ),
    "stacked with constants": (
        lambda: Between(lambda a, b: torch.stack((a, torch.ones(a.shape)), 1).flatten(1, 2), 2 * C),
        {"read": 6},
    ),
    "images beside each other": (
        lambda: Between(lambda a, b: torch.cat((a, b), 3).amax((2, 3), keepdim=True)),
        {"a": C, "read": 6},
    ),
    "stacked and summed": (
        lambda: Between(lambda a, b: torch.stack((a, b)).sum(0)),
        {"a": C, "read": 6},
    ),
    "levels beside each other": (
        lambda: Between(lambda a, b: torch.cat((a.flatten(2), b.flatten(2)), 2).unsqueeze(3)),
        {"a": C, "read": 6},
    ),
    "a new constant": (lambda: Between(lambda a, b: a + a.new_ones(1)), {"a": C, "read": 6}),
    # What stays whole.
    "a new constant of as many channels": (
        lambda: Between(lambda a, b: a.new_ones(a.shape) * a + b),
        {"read": 6},
    ),
    "group norm": (lambda: Between(lambda a, b, n: n(a) + b, n=nn.GroupNorm(3, C)), {"read": 6}),
    "layer norm": (
        lambda: Between(lambda a, b, n: n(a.movedim(1, -1)).movedim(-1, 1), n=nn.LayerNorm(C)),
        {"read": 6},
    ),
    "bare scales": (lambda: Between(lambda a, b, n: n(a) + b, n=Gamma()), {"read": 6}),
    "sum over channels": (
        lambda: Between(lambda a, b: a / a.sum(1, keepdim=True).clamp(min=1)),
        {"read": 6},
    ),
    "roll": (lambda: Between(lambda a, b: a.roll(2, 1)), {"read": 6}),
    "one channel taken out": (lambda: Between(lambda a, b: a[:, 3:4] + b), {"b": C, "read": 6}),
    "by a list": (
        lambda: Between(lambda a, b: a[:, list(range(C))[::-1]]),
        {"read": 6},
    ),
    "slice of a fixed size": (lambda: Between(lambda a, b: a[:, :4] + b[:, 4:8], 4), {"read": 6}),
    "halves of a fixed size": (
        lambda: Between(lambda a, b: torch.cat(a.split((C // 2, C // 2), 1)[::-1], 1)),
        {"read": 6},
    ),
    "zero channels beside": (
        lambda: Between(
            lambda a, b: F.pad(a, (0, 0, 0, 0, 2, 2)) + F.pad(b, (0, 0, 0, 0, 4, 0)), 16
        ),
        {"read": 6},
    ),
    "attention": (lambda: Between(attention), {"read": 6}),
    "another reader of a weight": (
        lambda: Between(lambda a, b, n: n(a) + n.weight.mean(), n=nn.Conv2d(C, C, 1)),
        {"read": 6},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_groups_of_what_lies_between_layers(name: str) -> None:
    make, expected = CASES[name]
    torch.manual_seed(0)
    groups = trace_groups(make().eval(), X)
    assert {group.name: group.size for group in groups} == expected


@pytest.mark.parametrize("name", CASES)
def test_random_cuts_are_right_whatever_lies_between(name: str) -> None:
    torch.manual_seed(0)
    model = enliven(CASES[name][0]()).eval()
    groups = trace_groups(model, X)
    for seed in range(3):
        plan = random_plan(groups, random.Random(seed), share=1.0)
        assert verify_plan(model, groups, plan, X) < 1e-9


def test_an_output_that_something_inside_reads_keeps_its_channels() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
            self.inner, self.three = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            first = self.one(x)
            second = self.two(first)
            return {"low": first, "high": [second, self.three(self.inner(second))]}

    groups = trace_groups(Pyramid(), X)
    assert [group.name for group in groups] == ["inner"]


def halves() -> tuple[nn.Module, list[Group]]:
    torch.manual_seed(0)
    model = CASES["halves swapped"][0]().eval()
    return model, trace_groups(model, X)


def test_halves_of_a_chunk_are_named_together() -> None:
    _, groups = halves()
    named = [[groups[number].name for number in numbers] for numbers in bundles(groups)]
    assert named == [["a", "a#2"], ["b"], ["read"]]


def test_a_plan_that_takes_more_from_one_half_is_refused() -> None:
    model, groups = halves()
    plan = plan_of(groups, {"a": (0, 1), "a#2": (3,)})
    with pytest.raises(PruningError, match="equally many channels: a loses 2, a#2 loses 1"):
        verify_plan(model, groups, plan, X)


def test_nothing_left_to_prune_names_what_keeps_the_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1))
    with pytest.raises(PruningError, match=r"no prunable channels.*native_group_norm"):
        trace_groups(model, X)
