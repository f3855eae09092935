"""Which channels must live or die together, traced with torch-pruning's dependency graph.

The library's graph tells which tensors feed which; here every channel of every layer becomes an
element, elements that must agree are united, and the classes are the slots: a slot is one channel
of a convolution with its batch norm, its consumers' input, and whatever a residual add or a concat
ties to it. Each channel falls into exactly one slot, so nothing can be pruned twice.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch_pruning
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_pruning.dependency import OPTYPE

from yolox.pruning.config import PruningError
from yolox.pruning.watch import describe, fixed_layers, one_line, watch_calls
from yolox.utils.model_utils import replace_module
from yolox.utils.threads import single_threaded

Axis = Literal["in", "out"]
Indices = NDArray[np.int64]

# Layers with a batch norm's shape, one parameter a channel, have one axis; it is called "out".
PRODUCERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One layer's part in a group.

    Attributes:
        name: module name.
        axis: ``out`` (filters, batch-norm entries, depthwise channels) or ``in`` (inputs).
        index: int64 (slots, repeat), the layer's channels that each slot stands for.
        produces: whether the layer makes these channels (convolution or linear output).
    """

    name: str
    axis: Axis
    index: Indices
    produces: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Slots with the same members: what can be ranked and removed slot by slot.

    Attributes:
        name: its first producer's module name, in module order.
        size: number of slots.
        members: layers that take part.
        kind: the same for groups of like shape: as many slots, made by convolutions of the same
            type, kernel and stride.
        ops: autograd names of the tensor operations that the slots pass through.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    kind: str = ""
    ops: tuple[str, ...] = ()

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that make the channels."""
        return tuple(member for member in self.members if member.produces)

    @property
    def channels_per_slot(self) -> int:
        """Output channels, over all producers, that go when one slot goes."""
        return sum(member.index.shape[1] for member in self.producers)


def trace_groups(model: nn.Module, example_input: Tensor) -> list[Group]:
    """Find the groups of coupled channels; the model is not touched.

    Channels that reach the model's output keep their number, as do those that pass through an op
    whose channel order the graph does not tell (split, slice, grouped but not depthwise conv), and
    those of `fixed_layers`, which are named in a warning.

    Args:
        model: any module that torch-pruning can trace.
        example_input: float (1, 3, H, W).

    Returns:
        Groups of prunable channels, in module order.

    Raises:
        PruningError: the model cannot be traced, or nothing in it can be pruned.
    """
    fixed = fixed_layers(model)
    twin = copy.deepcopy(model).float().cpu().eval().requires_grad_(True)
    # One slope for all channels has no channels of its own, and one such layer may run anywhere.
    twin = replace_module(twin, nn.PReLU, nn.LeakyReLU, lambda m, new: m if _slopes(m) else new())
    graph = torch_pruning.DependencyGraph()
    running = watch_calls(twin)
    try:
        with torch.enable_grad(), single_threaded():
            graph.build_dependency(twin, example_input.detach().float().cpu(), verbose=False)
        names = {module: name for name, module in twin.named_modules()}
        whole = {module for module, name in names.items() if name in fixed}
        groups = _collect(_Elements.of_graph(graph, whole), names)
    except Exception as error:
        where = f", in {describe(twin, running[-1])}" if running else ""
        raise PruningError(
            f"the model cannot be traced for pruning with an input of shape "
            f"{tuple(example_input.shape)}{where}: {type(error).__name__}: {one_line(error)}"
        ) from error
    if fixed:
        why = "; ".join(f"{name} {reason}" for name, reason in fixed.items())
        logger.warning(f"these layers keep their channels: {why}")
    if not groups:
        why = f", or belongs to a layer that keeps its channels: {why}" if fixed else ""
        raise PruningError(f"the model has no prunable channels: every one reaches its output{why}")
    return groups


def _slopes(module: nn.Module) -> bool:
    return isinstance(module, nn.PReLU) and module.num_parameters > 1


@dataclass
class _Elements:
    """All channels of all layers and tensors as one numbered list, and who must agree with whom."""

    ports: dict[tuple[Any, Axis], Indices] = field(default_factory=dict)
    total: int = 0
    ties: list[tuple[Indices, Indices]] = field(default_factory=list)
    fixed: list[Indices] = field(default_factory=list)

    @classmethod
    def of_graph(cls, graph: Any, whole: set[nn.Module]) -> _Elements:
        """Args: the library's graph; layers that keep all their channels."""
        elements = cls()
        nodes = list(graph.module_to_node.values())
        widths = _Widths()
        for node in nodes:
            elements._add_ports(node, widths)
            if node.module in whole:
                elements.fixed += [elements.ports[node, axis] for axis in ("in", "out")]
        for node in nodes:
            elements._tie_inputs(node, widths)
            if not node.outputs:
                elements.fixed.append(elements.ports[node, "out"])
        return elements

    def _add_ports(self, node: Any, widths: _Widths) -> None:
        module = node.module
        out = self._new(node, "out", widths.out(node))
        if node.type in (OPTYPE.CONV, OPTYPE.LINEAR):
            inputs = module.in_channels if node.type == OPTYPE.CONV else module.in_features
            self._new(node, "in", inputs)
            if not isinstance(module, PRODUCERS):  # transposed: other weight layout
                self.fixed += [out, self.ports[node, "in"]]
        elif node.type == OPTYPE.GROUP_CONV and not _is_depthwise(module):
            self.fixed += [out, self._new(node, "in", module.in_channels)]
        else:
            self.ports[node, "in"] = out
            if node.type == OPTYPE.SPLIT:
                self.fixed.append(out)

    def _new(self, node: Any, axis: Axis, width: int) -> Indices:
        port = np.arange(self.total, self.total + width)
        self.ports[node, axis] = port
        self.total += width
        return port

    def _tie_inputs(self, node: Any, widths: _Widths) -> None:
        """Tie a node's input channels with the outputs that feed it."""
        port = self.ports[node, "in"]
        offset = 0
        for source in node.inputs:
            produced = self.ports[source, "out"]
            if not len(produced) and node.type != OPTYPE.ELEMENTWISE:
                continue  # the layer's own parameter, transposed or reshaped
            wanted = port
            if node.type == OPTYPE.CONCAT:
                wanted = port[offset : offset + len(produced)]
                offset += len(produced)
            if len(produced) and len(wanted) % len(produced) == 0 and node.type == OPTYPE.LINEAR:
                # A flattened map: each channel stands for a run of features.
                produced = np.repeat(produced, len(wanted) // len(produced))
            if len(produced) == len(wanted):
                self.ties.append((produced, wanted))
            else:
                self.fixed += [produced, wanted]

    def labels(self) -> tuple[Indices, Indices]:
        """Each element's class label, and the labels that may not be pruned."""
        label = np.arange(self.total)
        if self.ties:
            a = np.concatenate([left for left, _ in self.ties])
            b = np.concatenate([right for _, right in self.ties])
            while True:
                smaller = np.minimum(label[a], label[b])
                if np.array_equal(smaller, label[a]) and np.array_equal(smaller, label[b]):
                    break
                np.minimum.at(label, label[a], smaller)
                np.minimum.at(label, label[b], smaller)
                label = label[label]
        fixed = np.concatenate([*self.fixed, np.empty(0, np.int64)]).astype(np.int64)
        return label, np.unique(label[fixed])


class _Widths:
    """Channels of each node's output; tensors between layers take their inputs' widths."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}

    def out(self, node: Any) -> int:
        pending = [node]  # a stack of our own: a deep net outruns Python's recursion limit
        while pending:
            current = pending[-1]
            if current in self._known:
                pending.pop()
                continue
            own = _layer_width(current)
            unknown = [] if own is not None else [n for n in current.inputs if n not in self._known]
            if unknown:
                pending += unknown
                continue
            if own is None:
                inputs = [self._known[source] for source in current.inputs]
                own = sum(inputs) if current.type == OPTYPE.CONCAT else max(inputs, default=0)
            self._known[current] = own
        return self._known[node]


def _layer_width(node: Any) -> int | None:
    module = node.module
    if node.type in (OPTYPE.CONV, OPTYPE.GROUP_CONV):
        return int(module.out_channels)
    if node.type == OPTYPE.LINEAR:
        return int(module.out_features)
    if node.type == OPTYPE.BN:
        return int(module.num_features)
    if node.type == OPTYPE.PRELU and module.num_parameters > 1:
        return int(module.num_parameters)
    return None


def _is_depthwise(module: Any) -> bool:
    return bool(module.groups == module.in_channels == module.out_channels)


def _collect(elements: _Elements, names: dict[nn.Module, str]) -> list[Group]:
    """Turn classes of elements into groups of slots with the same members."""
    label, fixed = elements.labels()
    layers = [
        (names[node.module], axis, port)
        for (node, axis), port in elements.ports.items()
        if node.module in names and not (axis == "in" and port is elements.ports[node, "out"])
    ]
    order = {name: position for position, name in enumerate(names.values())}
    layers.sort(key=lambda layer: (order[layer[0]], layer[1] == "in"))
    modules = {name: module for module, name in names.items()}
    makes = [axis == "out" and isinstance(modules[name], PRODUCERS) for name, axis, _ in layers]

    rows = np.concatenate(
        [
            np.stack((label[port], np.full(len(port), number), np.arange(len(port))), axis=1)
            for number, (_, _, port) in enumerate(layers)
        ]
    )
    rows = rows[~np.isin(rows[:, 0], fixed)]
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    slots_of: dict[tuple[int, ...], list[list[int]]] = {}
    labels_of: dict[tuple[int, ...], list[int]] = {}
    for own_label, slot in itertools.groupby(rows.tolist(), key=lambda row: row[0]):
        entries = list(slot)
        signature = tuple(row[1] for row in entries)
        slots_of.setdefault(signature, []).append([row[2] for row in entries])
        labels_of.setdefault(signature, []).append(own_label)
    ops_of = _ops_by_label(elements, label, names)

    groups: list[Group] = []
    taken: dict[str, int] = {}
    for signature, slots in sorted(slots_of.items()):
        if not any(makes[number] for number in signature):
            continue
        channels = np.array(slots, dtype=np.int64)
        columns = np.array(signature)
        members = tuple(
            Member(
                name=layers[number][0],
                axis=layers[number][1],
                index=channels[:, columns == number],
                produces=makes[number],
            )
            for number in dict.fromkeys(signature)
        )
        root = next(member.name for member in members if member.produces)
        taken[root] = taken.get(root, 0) + 1
        name = root if taken[root] == 1 else f"{root}#{taken[root]}"
        ops = set().union(*(ops_of.get(own_label, ()) for own_label in labels_of[signature]))
        groups.append(
            Group(
                name=name,
                size=len(slots),
                members=members,
                kind=_kind(len(slots), [modules[m.name] for m in members if m.produces]),
                ops=tuple(sorted(ops)),
            )
        )
    return sorted(groups, key=lambda group: order[group.producers[0].name])


def _ops_by_label(
    elements: _Elements, label: Indices, names: dict[nn.Module, str]
) -> dict[int, set[str]]:
    """Autograd names of the tensor operations that touch each class of elements."""
    ops: dict[int, set[str]] = {}
    for (node, axis), port in elements.ports.items():
        if axis == "out" and node.module not in names and node.grad_fn is not None:
            for own_label in np.unique(label[port]).tolist():
                ops.setdefault(own_label, set()).add(node.grad_fn.name())
    return ops


def _kind(size: int, producers: list[Any]) -> str:
    shapes = [
        f"{type(layer).__name__}{getattr(layer, 'kernel_size', ())}{getattr(layer, 'stride', ())}"
        for layer in producers
    ]
    return f"{size} × {' + '.join(sorted(shapes))}"
