"""Measured milliseconds of layers by their input and output channels, kept on disk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger
from torch import Tensor, nn

from yolox.models.network_blocks import ACTIVATIONS
from yolox.pruning.channels import Axis
from yolox.pruning.cost import AXES, Counts, Values
from yolox.pruning.groups import Group
from yolox.utils.conv_kind import ConvKind, LayerTimer, Pair
from yolox.utils.documents import json_text, read_json
from yolox.utils.files import replacing
from yolox.utils.model_utils import run_shapes
from yolox.utils.progress import track

TABLE_FORMAT = "yolox-layer-latencies"
WIDTH_FRACTIONS = (0.125, 0.25, 0.5, 0.75)  # of a layer's width; the width itself is always there
REMEASURE_RATIO = 1.05  # times what a wider layer takes: such a figure is measured again
RETRIES = 2

_NAMES: dict[type, str] = {type(make()): name for name, make in ACTIVATIONS.items()}


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """A convolution of a model: its kind and its channels."""

    kind: ConvKind
    inputs: int
    outputs: int

    def width(self, axis: Axis) -> int | None:
        """Channels on an axis; the inputs of a depthwise layer are its outputs."""
        if axis == "out":
            return self.outputs
        return None if self.kind.depthwise else self.inputs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole layer."""
        kind = self.kind
        sides = [
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                kind.size, kind.padding, kind.kernel, kind.stride, strict=True
            )
        ]
        inputs = 1 if kind.depthwise else self.inputs
        return math.prod((*sides, *kind.kernel, inputs, self.outputs))


def conv_layers(model: nn.Module, example_input: Tensor) -> dict[str, ConvLayer]:
    """Every dense or depthwise 2-d convolution that an input (1, 3, H, W) passes, by name.

    The activation is that of the unit which a convolution is the ``conv`` of.
    """
    layers: dict[str, ConvLayer] = {}

    def record(parent: nn.Module, name: str, conv: nn.Conv2d, size: tuple[int, int]) -> None:
        behind = getattr(parent, "act", None) if getattr(parent, "conv", None) is conv else None
        kind = ConvKind(
            kernel=_two(conv.kernel_size),
            stride=_two(conv.stride),
            padding=_two(conv.padding),
            depthwise=conv.groups > 1,
            size=size,
            act=_NAMES.get(type(behind), ""),
        )
        layers[name] = ConvLayer(kind=kind, inputs=conv.in_channels, outputs=conv.out_channels)

    def watch(shell: nn.Module, x: Tensor) -> None:
        for name, conv in shell.named_modules():
            if isinstance(conv, nn.Conv2d) and conv.groups in (1, conv.in_channels):
                note = partial(record, shell.get_submodule(name.rpartition(".")[0]), name)
                conv.register_forward_hook(
                    lambda own, args, _out, note=note: note(own, tuple(args[0].shape[2:]))
                )
        shell(x)

    run_shapes(model, example_input, watch)
    return layers


def _two(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values[1])


class LayerTable:
    """A layer's milliseconds on a grid of channels: linear in each axis between its nodes.

    Exact at the nodes; beyond them it stays what it is at the nearest.
    """

    def __init__(self, layer: ConvLayer, inputs: Sequence[int], outputs: Sequence[int], ms: Values):
        """Args: nodes, rising; `ms` (inputs, outputs) at them."""
        self._layer, self._ms = layer, ms
        self._rows, self._columns = _Places(inputs), _Places(outputs)

    def width(self, axis: Axis) -> int | None:
        """See `ChannelCost`."""
        return self._layer.width(axis)

    def at(self, inputs: Counts, outputs: Counts) -> Values:
        """See `ChannelCost`."""
        row, row_end, row_part = self._rows.of(inputs)
        column, column_end, column_part = self._columns.of(outputs)
        ms = self._ms
        left = ms[row, column] * (1 - row_part) + ms[row_end, column] * row_part
        right = ms[row, column_end] * (1 - row_part) + ms[row_end, column_end] * row_part
        result: Values = left * (1 - column_part) + right * column_part
        gone = np.zeros(len(result), dtype=bool)  # a layer that was emptied does not run
        if self.width("in") is not None:
            gone |= inputs == 0
        if self.width("out") is not None:
            gone |= outputs == 0
        return np.where(gone, 0.0, result)


class _Places:
    """Where each number of channels lies between the nodes of an axis, found once."""

    def __init__(self, nodes: Sequence[int]) -> None:
        place = np.interp(np.arange(nodes[-1] + 1), nodes, np.arange(len(nodes)))
        self._node = place.astype(np.int64)
        self._end = np.minimum(self._node + 1, len(nodes) - 1)
        self._part = place - self._node

    def of(self, counts: Counts) -> tuple[Counts, Counts, Values]:
        """The node below each count, the next, and how far it is on the way there, in [0, 1)."""
        at = np.minimum(counts, len(self._node) - 1)
        return self._node[at], self._end[at], self._part[at]


class LatencyTable:
    """Milliseconds by kind of layer and channels, in a file that is whole at any instant."""

    def __init__(self, path: Path, stamp: Mapping[str, str]) -> None:
        """Args: `stamp`: what the figures hold for; a file with another is begun anew."""
        self.path = path
        self._stamp = dict(stamp)
        self.ms = self._read()

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.exists():
            return {}
        try:
            content = read_json(self.path)
            if content["format"] != TABLE_FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            found = {str(key): str(value) for key, value in content["stamp"].items()}
            table = {
                str(kind): {_key(_pair_of(key)): _positive(ms) for key, ms in row.items()}
                for kind, row in content["ms"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                f"cannot read the latencies of layers in {self.path} ({error!r}): measuring again"
            )
            return {}
        odd = [key for key, value in self._stamp.items() if found.get(key) != value]
        if odd:
            changes = ", ".join(f"{k} {found.get(k)}, now {self._stamp[k]}" for k in odd)
            logger.info(f"the latencies of layers in {self.path} are of {changes}: measuring again")
            return {}
        return table

    def fill(self, wanted: Mapping[ConvKind, Sequence[Pair]], measure: LayerTimer) -> None:
        """Measure what is missing, kind by kind, each written when it is done.

        A figure above that of a layer with no fewer channels is likely to be noise: it is measured
        again, and the lower one counts. A runtime that is slower on fewer channels stays so.
        """
        missing = {
            kind: [pair for pair in dict.fromkeys(pairs) if _key(pair) not in self._row(kind)]
            for kind, pairs in wanted.items()
        }
        missing = {kind: pairs for kind, pairs in missing.items() if pairs}
        if missing:
            logger.info(
                f"measuring {sum(map(len, missing.values()))} layers of {len(missing)} kinds, once "
                f"for this machine, into {self.path}"
            )
        for kind, pairs in track(missing.items(), "Timing layers", len(missing)):
            row = self._row(kind)
            row |= dict(zip(map(_key, pairs), measure(kind, pairs), strict=True))
            for _ in range(RETRIES):
                doubtful = [pair for pair in pairs if self._is_doubtful(kind, pair)]
                again = measure(kind, doubtful) if doubtful else []
                for pair, ms in zip(doubtful, again, strict=True):
                    row[_key(pair)] = min(row[_key(pair)], ms)
            self.ms[kind.label] = row
            self._save()

    def get(self, kind: ConvKind, pair: Pair) -> float:
        """Milliseconds of a layer that was measured."""
        return self.ms[kind.label][_key(pair)]

    def _row(self, kind: ConvKind) -> dict[str, float]:
        return self.ms.setdefault(kind.label, {})

    def _is_doubtful(self, kind: ConvKind, pair: Pair) -> bool:
        row = self._row(kind)
        wider = [
            ms
            for key, ms in row.items()
            for other in [_pair_of(key)]
            if other != pair and other[0] >= pair[0] and other[1] >= pair[1]
        ]
        return bool(wider) and row[_key(pair)] > REMEASURE_RATIO * min(wider)

    def _save(self) -> None:
        content = {"format": TABLE_FORMAT, "stamp": self._stamp, "ms": self.ms}
        with replacing(self.path) as temporary:
            temporary.write_text(json_text(content, indent=1) + "\n", encoding="utf-8")


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a time")
    if not 0 < value < math.inf:
        raise ValueError(f"{value} ms is not a time")
    return float(value)


def _key(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"


def _pair_of(key: str) -> Pair:
    inputs, outputs = map(int, key.split("x"))
    return inputs, outputs


def nodes(width: int, step: int) -> list[int]:
    """Counts of channels to measure at, in whole steps: about `WIDTH_FRACTIONS` of a width."""
    coarse = {max(1, round(width * part / step)) * step for part in WIDTH_FRACTIONS}
    return sorted({count for count in coarse if count < width} | {width})


def layer_tables(
    table: LatencyTable,
    measure: LayerTimer,
    layers: Mapping[str, ConvLayer],
    groups: Sequence[Group],
    step: int,
) -> dict[str, LayerTable]:
    """Milliseconds of every layer as a function of its channels; what is missing is measured.

    Args:
        table: where figures are kept.
        measure: times what the table lacks.
        layers: of the model, from `conv_layers`.
        groups: those that may lose channels; other axes need one node.
        step: channels are left in multiples of it.
    """
    movable = {(member.name, member.axis) for group in groups for member in group.members}
    grids: dict[str, tuple[list[int], list[int]]] = {}
    for name, layer in layers.items():
        axes = []
        for axis in AXES:
            width = layer.width(axis)
            if width is None:
                axes.append([0])
            else:
                axes.append(nodes(width, step) if (name, axis) in movable else [width])
        grids[name] = (axes[0], axes[1])
    wanted: dict[ConvKind, list[Pair]] = {}
    for name, (inputs, outputs) in grids.items():
        pairs = [_pair(layers[name], i, o) for i, o in itertools.product(inputs, outputs)]
        wanted.setdefault(layers[name].kind, []).extend(pairs)
    table.fill(wanted, measure)
    return {
        name: LayerTable(
            layer,
            *grids[name],
            np.array(
                [
                    [table.get(layer.kind, _pair(layer, i, o)) for o in grids[name][1]]
                    for i in grids[name][0]
                ]
            ),
        )
        for name, layer in layers.items()
    }


def _pair(layer: ConvLayer, inputs: int, outputs: int) -> Pair:
    return (outputs, outputs) if layer.kind.depthwise else (inputs, outputs)
