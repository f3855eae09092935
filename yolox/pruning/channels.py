"""All channels of a model's layers as one numbered list, and which of them belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Axis = Literal["in", "out"]
Indices = NDArray[np.int64]
Port = tuple[str, Axis]  # module name and axis

CONSTANT = -1  # in the place of a channel: none, or one that is never pruned


@dataclass
class Channels:
    """All channels of all layers as one numbered list, and what ties them or keeps them.

    Attributes:
        ports: the numbers of each layer's channels on each axis.
        ties: pairs of equally long arrays of channels that have to live or die together.
        pinned: arrays of channels that stay, and the operation that keeps them.
        parts: equal parts of what a split laid apart: each has to lose as many channels.
        ops: operations, with the channels that pass through them.
        positional: channels on the way of which an operation goes by position or count, so that
            whether it follows a cut has to be tried.
        total: how many channels there are.
    """

    ports: dict[Port, Indices] = field(default_factory=dict)
    ties: list[tuple[Indices, Indices]] = field(default_factory=list)
    pinned: list[tuple[Indices, str]] = field(default_factory=list)
    parts: list[list[Indices]] = field(default_factory=list)
    ops: dict[str, list[Indices]] = field(default_factory=dict)
    positional: list[Indices] = field(default_factory=list)
    total: int = 0

    def add(self, name: str, axis: Axis, width: int) -> Indices:
        """Number a layer's channels on an axis."""
        port = np.arange(self.total, self.total + width)
        self.ports[name, axis] = port
        self.total += width
        return port

    def tie(self, left: Indices, right: Indices) -> None:
        """Channels that have to live or die together; those tied with a constant stay."""
        known = (left != CONSTANT) & (right != CONSTANT)
        pairs = np.unique(np.stack((left, right), axis=-1)[known & (left != right)], axis=0)
        if len(pairs):
            self.ties.append((pairs[:, 0], pairs[:, 1]))

    def pin(self, channels: Indices, op: str) -> None:
        """Channels that stay, because of an operation."""
        known = np.unique(channels[channels != CONSTANT])
        if len(known):
            self.pinned.append((known, op))

    def classes(self) -> tuple[Indices, Indices]:
        """Each channel's class, named by its lowest channel; and the classes that stay."""
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
        stays = np.concatenate([*(ids for ids, _ in self.pinned), np.empty(0, np.int64)])
        return label, np.unique(label[stays.astype(np.int64)])
