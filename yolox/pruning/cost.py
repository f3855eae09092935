"""What a model costs as a function of how many slots each group has lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from yolox.pruning.channels import Axis
from yolox.pruning.groups import PRODUCERS, Group
from yolox.utils.model_utils import count_macs, count_params, run_shapes

REST = "<rest>"  # what costs something and is in no layer that can be cut
AXES: tuple[Axis, Axis] = ("in", "out")

KNOWN_CHOICES = 20_000  # costs of a group's choices that are kept in memory, some kB each at most

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


class ChannelCost(Protocol):
    """A layer's cost as a function of its channels."""

    def width(self, axis: Axis) -> int | None:
        """Channels of the whole layer on an axis; None where they do not matter to the cost."""

    def at(self, inputs: Counts, outputs: Counts) -> Values:
        """Costs (n,) at n pairs of channels left; an axis that does not matter may hold any."""


class SlotCosts(Protocol):
    """What a model costs as a function of the slots that each group keeps, in any form."""

    def at(self, kept: Sequence[int]) -> float:
        """The whole model's cost."""

    def choices(self, group: int, counts: Counts, kept: Sequence[int]) -> Values:
        """Costs (n,) if a group kept each of n counts and the others stayed as they are.

        The part of the model that does not depend on the group may be left out.
        """


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """A whole layer's cost and channels; an axis that does not matter to the cost has None."""

    cost: float
    outputs: int | None
    inputs: int | None

    def width(self, axis: Axis) -> int | None:
        """Channels on an axis."""
        return self.outputs if axis == "out" else self.inputs

    def at(self, inputs: Counts, outputs: Counts) -> Values:
        """See `ChannelCost`."""
        left = np.full(len(outputs), float(self.cost))
        if self.outputs is not None:
            left *= outputs / self.outputs
        if self.inputs is not None:
            left *= inputs / self.inputs
        return left


class _Part(NamedTuple):
    """A group's share of one layer's axis: the fraction of the axis that one slot stands for."""

    layer: str
    axis: Axis
    fraction: float


class CostModel:
    """Sum over layers of base · (fraction of outputs left) · (fraction of inputs left).

    That is exact for MACs, parameters and activations; a depthwise layer has outputs only.
    """

    def __init__(self, groups: Sequence[Group], base: Mapping[str, LayerCost]) -> None:
        """Args: the groups in the order of their numbers; each layer's cost while it is whole."""
        self._base = dict(base)
        self._left: dict[tuple[str, Axis], float] = {}
        self._parts = [
            [
                _Part(name, member.axis, member.index.shape[1] / width)
                for member in group.members
                for name in (member.name, f"{member.name}.bias")
                if (width := base[name].width(member.axis) if name in base else None)
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


class LayerSum:
    """A constant and the costs of layers, whatever functions of their channels these are."""

    def __init__(
        self,
        groups: Sequence[Group],
        layers: Mapping[str, ChannelCost],
        *,
        scale: float = 1.0,
        constant: float = 0.0,
    ) -> None:
        """Args: the groups in the order of their numbers; `scale` multiplies each layer's cost."""
        self._layers = dict(layers)
        self._scale, self._constant = scale, constant
        # Of each axis: channels in no group, and the groups with the channels that a slot is.
        self._rest: dict[tuple[str, Axis], int] = {}
        self._shares: dict[tuple[str, Axis], dict[int, int]] = {}
        for name, layer in self._layers.items():
            for axis in AXES:
                self._rest[name, axis] = layer.width(axis) or 0
                self._shares[name, axis] = {}
        self._touched: list[list[str]] = []
        for number, group in enumerate(groups):
            members = [m for m in group.members if m.name in layers]
            members = [m for m in members if self._layers[m.name].width(m.axis) is not None]
            self._touched.append(list(dict.fromkeys(member.name for member in members)))
            for member in members:
                self._rest[member.name, member.axis] -= member.index.size
                shares = self._shares[member.name, member.axis]
                shares[number] = shares.get(number, 0) + member.index.shape[1]
        # Of each group: the others that the cost of its choices depends on.
        self._neighbours = [
            sorted({g for n in names for axis in AXES for g in self._shares[n, axis]} - {number})
            for number, names in enumerate(self._touched)
        ]
        # A search asks for the same again and again.
        self._known_choices: dict[tuple[int, bytes, tuple[int, ...]], Values] = {}
        self._known_layers: dict[tuple[str, int, int], float] = {}

    def at(self, kept: Sequence[int]) -> float:
        """See `SlotCosts`."""
        layers = sum(
            self._layer_cost(name, *(self._left(name, axis, kept) for axis in AXES))
            for name in self._layers
        )
        return self._constant + self._scale * layers

    def choices(self, group: int, counts: Counts, kept: Sequence[int]) -> Values:
        """See `SlotCosts`."""
        others = tuple(kept[other] for other in self._neighbours[group])
        key = (group, counts.tobytes(), others)
        if (known := self._known_choices.get(key)) is not None:
            return known
        total = np.zeros(len(counts))
        for name in self._touched[group]:
            left = []
            for axis in AXES:
                now = self._left(name, axis, kept)
                per_slot = self._shares[name, axis].get(group, 0)
                left.append(now + per_slot * (counts - kept[group]))
            total += self._layers[name].at(*left)
        total *= self._scale
        total.flags.writeable = False  # the next caller gets it too
        if len(self._known_choices) == KNOWN_CHOICES:
            self._known_choices.clear()
        self._known_choices[key] = total
        return total

    def _layer_cost(self, name: str, inputs: int, outputs: int) -> float:
        key = (name, inputs, outputs)
        if key not in self._known_layers:
            pair = np.array([inputs]), np.array([outputs])
            self._known_layers[key] = float(self._layers[name].at(*pair)[0])
        return self._known_layers[key]

    def _left(self, name: str, axis: Axis, kept: Sequence[int]) -> int:
        shares = self._shares[name, axis]
        return self._rest[name, axis] + sum(kept[g] * slots for g, slots in shares.items())


def channel_costs(groups: Sequence[Group]) -> dict[str, LayerCost]:
    """Every producer costs its output channels."""
    widths: dict[str, int] = {}
    for group in groups:
        for member in group.producers:
            widths[member.name] = widths.get(member.name, 0) + member.index.size
    return {name: LayerCost(cost=w, outputs=w, inputs=None) for name, w in widths.items()}


def mac_costs(model: nn.Module, count_input: Tensor) -> dict[str, LayerCost]:
    """Multiply-accumulates of each convolution and linear layer on an input (1, 3, H, W).

    Those of attention, of transposed convolutions and of whatever else are together in `REST`.
    """
    macs = count_macs(model, count_input)
    costs = {
        name: LayerCost(
            cost=macs[name],
            outputs=layer.weight.shape[0],
            inputs=None if getattr(layer, "groups", 1) > 1 else layer.weight.shape[1],
        )
        for name, layer in _layers(model)
        if name in macs
    }
    return _with_rest(costs, macs[""])


def _with_rest(costs: dict[str, LayerCost], total: float) -> dict[str, LayerCost]:
    rest = total - sum(layer.cost for layer in costs.values())
    if rest:
        costs[REST] = LayerCost(cost=rest, outputs=None, inputs=None)
    return costs


def param_costs(model: nn.Module) -> dict[str, LayerCost]:
    """Parameters of each layer; what has one value an output stands apart, as ``NAME.bias``.

    Parameters of any other shape are together in `REST`.
    """
    costs: dict[str, LayerCost] = {}
    for name, module in model.named_modules():
        if isinstance(module, PRODUCERS):
            costs[name] = LayerCost(
                cost=module.weight.numel(),
                outputs=module.weight.shape[0],
                inputs=None if getattr(module, "groups", 1) > 1 else module.weight.shape[1],
            )
            vectors = [] if module.bias is None else [module.bias]
        else:
            vectors = [p for p in module.parameters(recurse=False) if p.dim() == 1]
        if vectors:
            key = name if name not in costs else f"{name}.bias"
            width = len(vectors[0])
            costs[key] = LayerCost(cost=len(vectors) * width, outputs=width, inputs=None)
    return _with_rest(costs, count_params(model))


def memory_costs(model: nn.Module, count_input: Tensor) -> dict[str, LayerCost]:
    """Values that each convolution or linear layer writes, on an input (1, 3, H, W)."""
    costs: dict[str, LayerCost] = {}

    def record(name: str, layer: nn.Module, output: Tensor) -> None:
        width = output.shape[-1 if isinstance(layer, nn.Linear) else 1]
        costs[name] = LayerCost(cost=output.numel(), outputs=width, inputs=None)

    def watch(shell: nn.Module, x: Tensor) -> None:
        for name, layer in _layers(shell):
            layer.register_forward_hook(lambda m, _a, output, name=name: record(name, m, output))
        shell(x)

    run_shapes(model, count_input, watch)
    return costs


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(n, module) for n, module in model.named_modules() if isinstance(module, PRODUCERS)]
