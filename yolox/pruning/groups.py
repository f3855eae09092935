"""Which channels must live or die together; `tracing` finds them in a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from yolox.pruning.channels import Axis, Indices

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
        ops: tensor operations that the slots pass through.
        positional: whether one of them goes by the position or the number of channels.
        balance: the same for groups that have to lose equally many slots, as the halves that a
            chunk cuts a tensor into; empty for most.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    kind: str = ""
    ops: tuple[str, ...] = ()
    positional: bool = False
    balance: str = ""

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that make the channels."""
        return tuple(member for member in self.members if member.produces)

    @property
    def channels_per_slot(self) -> int:
        """Output channels, over all producers, that go when one slot goes."""
        return sum(member.index.shape[1] for member in self.producers)
