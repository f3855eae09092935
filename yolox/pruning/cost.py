"""What a model costs as a function of how many slots each group has lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from yolox.pruning.groups import PRODUCERS, Axis, Group


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """A whole layer's cost and channels; an axis that does not matter to the cost has None."""

    cost: float
    outputs: int | None
    inputs: int | None

    def width(self, axis: Axis) -> int | None:
        """Channels on an axis."""
        return self.outputs if axis == "out" else self.inputs


class _Part(NamedTuple):
    """A group's share of one layer's axis: the fraction of the axis that one slot stands for."""

    layer: str
    axis: Axis
    fraction: float


class CostModel:
    """Sum over layers of base · (fraction of outputs left) · (fraction of inputs left).

    That is exact for MACs and for the weights of convolutions and linear layers; a depthwise layer
    has outputs only.
    """

    def __init__(self, groups: Sequence[Group], base: Mapping[str, LayerCost]) -> None:
        """Args: the groups in the order of their numbers; each layer's cost while it is whole."""
        self._base = dict(base)
        self._left: dict[tuple[str, Axis], float] = {}
        self._parts = [
            [
                _Part(member.name, member.axis, member.index.shape[1] / width)
                for member in group.members
                if (width := base[member.name].width(member.axis) if member.name in base else None)
            ]
            for group in groups
        ]
        self.total = sum(layer.cost for layer in self._base.values())

    def _layer(self, name: str) -> float:
        return (
            self._base[name].cost
            * self._left.get((name, "out"), 1.0)
            * self._left.get((name, "in"), 1.0)
        )

    def _shift(self, group: int, slots: int) -> None:
        for part in self._parts[group]:
            key = (part.layer, part.axis)
            self._left[key] = self._left.get(key, 1.0) - slots * part.fraction

    def remove(self, group: int, slots: int) -> float:
        """Take slots out of a group, by its number; returns what that saves."""
        layers = {part.layer for part in self._parts[group]}
        before = sum(self._layer(name) for name in layers)
        self._shift(group, slots)
        return before - sum(self._layer(name) for name in layers)

    def saving(self, group: int, slots: int) -> float:
        """What taking slots out of a group would save now."""
        saved = self.remove(group, slots)
        self._shift(group, -slots)
        return saved


def channel_costs(groups: Sequence[Group]) -> dict[str, LayerCost]:
    """Every producer costs its output channels."""
    widths: dict[str, int] = {}
    for group in groups:
        for member in group.producers:
            widths[member.name] = widths.get(member.name, 0) + member.index.size
    return {name: LayerCost(cost=w, outputs=w, inputs=None) for name, w in widths.items()}


def layer_costs(model: nn.Module, cost_of: Mapping[str, float]) -> dict[str, LayerCost]:
    """Convolutions and linear layers with a given cost each, by module name."""
    costs = {}
    for name, layer in model.named_modules():
        if isinstance(layer, PRODUCERS) and name in cost_of:
            grouped = getattr(layer, "groups", 1) > 1
            costs[name] = LayerCost(
                cost=cost_of[name],
                outputs=layer.weight.shape[0],
                inputs=None if grouped else layer.weight.shape[1],
            )
    return costs


def weight_counts(model: nn.Module) -> dict[str, float]:
    """Weights of each convolution and linear layer."""
    return {
        name: layer.weight.numel()
        for name, layer in model.named_modules()
        if isinstance(layer, PRODUCERS)
    }
