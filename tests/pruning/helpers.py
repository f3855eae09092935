"""Models with lively weights, random plans, and small nets of shapes that are not ours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers import SPECS
from yolox.models import ModelSpec
from yolox.pruning import Group, Member, PruneConfig, PruningPlan
from yolox.pruning.balance import bundles

# The depth of the larger models at a width that runs in no time; the graph is the same.
SLIM_SPECS: dict[str, ModelSpec] = {
    "yolox-nano": SPECS["yolox-nano"],
    "yolox-tiny": ModelSpec(depth=0.33, width=0.125, input_size=(416, 416)),
    "yolox-s": ModelSpec(depth=0.33, width=0.25),
    "yolox-m": ModelSpec(depth=0.67, width=0.125),
    "yolox-l": ModelSpec(depth=1.0, width=0.125),
    "yolox-x": ModelSpec(depth=1.33, width=0.125),
    "yolov3": SPECS["yolov3"],
}


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and batch-norm statistics that keep a signal alive to the last layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, mean: float, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                normal(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    normal(module.bias, 0, 0.3)
            elif isinstance(module, nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.2)
                normal(module.bias, 0, 0.3)
                normal(module.running_mean, 0, 0.3)
                uniform(module.running_var, 0.7, 1.5)
        # Box sizes are exponentials: keep them in range.
        for name, parameter in model.named_parameters():
            if "reg_preds" in name:
                parameter.mul_(0.1)
    return model


def bare(**fields: Any) -> PruneConfig:
    """A config of tiny networks without images: nothing rounded or refitted unless it is asked."""
    return PruneConfig(**{"round_to": 1, "reconstruct": 0, **fields})


def random_plan(groups: Sequence[Group], rng: random.Random, share: float = 0.7) -> PruningPlan:
    """Any number of slots, any slots, in about ``share`` of the groups."""
    removed = {}
    for numbers in bundles(groups):
        size = groups[numbers[0]].size
        if size > 1 and rng.random() < share:
            count = rng.randint(1, size - 1)
            for number in numbers:
                slots = rng.sample(range(size), count)
                removed[groups[number].name] = tuple(sorted(slots))
    return plan_of(groups, removed or {groups[n].name: (0,) for n in bundles(groups)[0]})


def plan_of(groups: Sequence[Group], removed: dict[str, tuple[int, ...]]) -> PruningPlan:
    """A plan that removes exactly these slots."""
    return PruningPlan(removed=removed, sizes={group.name: group.size for group in groups})


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of a model."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model: nn.Module, before: dict[str, Tensor]) -> None:
    """The model holds bit for bit what the snapshot holds."""
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype, name
        assert torch.equal(after[name], value), name


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value of b."""
    return float((a - b).abs().max() / b.abs().max())


def group_of(groups: Sequence[Group], layer: str) -> Group:
    """The one group in which a layer produces channels."""
    (group,) = (g for g in groups if any(m.name == layer for m in g.producers))
    return group


def member_of(group: Group, name: str, axis: str) -> Member:
    """A layer's part in a group."""
    (member,) = (m for m in group.members if (m.name, m.axis) == (name, axis))
    return member


class Residual(nn.Module):
    """A ResNet basic block, with a projected shortcut where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.down = None
        if stride > 1 or cin != cout:
            self.down = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):
    """Two stages, global pooling, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stages = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 16, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.stages(self.stem(x))).flatten(1))


class DenseNet(nn.Module):
    """Concats of concats: every layer reads all earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 1, 1)
        widths = (6, 10, 14)
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, 4, 3, 1, 1) for width in widths)
        self.last = nn.Conv2d(18, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for bn, conv in zip(self.bns, self.convs, strict=True):
            x = torch.cat((x, conv(torch.relu(bn(x)))), dim=1)
        return self.last(x)


class FlatMap(nn.Module):
    """A linear layer on a flattened map: each channel stands for 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 1, 1)
        self.fc1 = nn.Linear(6 * 16, 10)
        self.fc2 = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_max_pool2d(torch.relu(self.conv(x)), 4)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class Shuffled(nn.Module):
    """Two halves of the channels interleaved, as in ShuffleNet: no op says so to the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1)
        self.conv2 = nn.Conv2d(8, 6, 3, 1, 1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        b, c, h, w = x.shape
        x = x.reshape(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.last(torch.relu(self.conv2(x)))


class Split(nn.Module):
    """Features taken apart, by chunk and by slice, before they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.chunked = nn.Conv2d(3, 8, 3, 1, 1)
        self.left = nn.Conv2d(4, 4, 1)
        self.right = nn.Conv2d(4, 6, 1)
        self.sliced = nn.Conv2d(10, 8, 1)
        self.free = nn.Conv2d(5, 6, 1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.chunked(x).chunk(2, dim=1)
        x = self.sliced(torch.cat((self.left(a), self.right(b)), dim=1))
        return self.last(torch.relu(self.free(x[:, :5])))


class SharedConv(nn.Module):
    """One convolution that runs twice, and so reads and feeds two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 1, 1)
        self.shared = nn.Conv2d(8, 8, 3, 1, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.shared(torch.relu(self.shared(x)))))


class SqueezeExcite(nn.Module):
    """A channel gate computed from the channels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 1, 1)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.last(x * torch.sigmoid(self.excite(gate)))
