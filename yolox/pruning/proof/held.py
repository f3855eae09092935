"""Large plain layers, which are proved at what they read and need not be run again and again.

A convolution's or linear layer's own part is seen with trained weights: both models run it on the
same noise. Whether it reads the right channels is seen at its input, to which random weights in
place of the trained ones would add nothing. Most of a detector's weights are in such layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import skip_init

from yolox.pruning.groups import PRODUCERS

LARGE_WEIGHT = 200_000  # values of a weight


class LargeLayers:
    """Those of a masked model and of its pruned twin, whose forward runs through here.

    Attributes:
        running: whether they run; or something stands in for them, and `input` is to be compared.
        input: what the layer that was last called read, while they do not run.
        names: module names.
        used: addresses of parameters that were read or stood in for.
    """

    def __init__(
        self, masked: nn.Module, small: nn.Module, silent: Mapping[str, Tensor], reads: set[int]
    ) -> None:
        """Take over the forward of both models' large layers.

        Args:
            masked: the whole model, with the removed channels silenced.
            small: the pruned one.
            silent: the channels that each layer of the masked model must not read. They are
                silenced in its input, not in its weight.
            reads: addresses of all that the operations of a run read, as they go on.
        """
        self.running, self.input = True, torch.empty(0)
        self.names: set[str] = set()
        self.used: set[int] = set()
        self._compared: set[str] = set()
        self._storages: dict[str, set[int]] = {}
        self._reads = reads
        for name, layer in list(masked.named_modules()):
            other = small.get_submodule(name)
            if not (_is_plain(layer) and _is_plain(other) and layer.weight.numel() >= LARGE_WEIGHT):
                continue
            self.names.add(name)
            self._storages[name] = {p.untyped_storage().data_ptr() for p in layer.parameters()}
            calls = (
                (layer, _OneFilter(layer), silent.get(name)),
                (other, nn.Identity(), None),  # its output is replaced with the masked one's
            )
            for module, stand_in, ids in calls:
                call = partial(self._call, name, layer_dim(module), module.forward, stand_in, ids)
                module.forward = call

    def parameters(self) -> set[str]:
        """Names of the parameters that are neither silenced nor redrawn."""
        return {f"{name}.{key}" for name in self.names for key in ("weight", "bias")}

    def stands_in(self, name: str) -> bool:
        """Whether something stands in for that layer."""
        return not self.running and name in self.names

    def compared(self, name: str) -> None:
        """Note that a layer's own output was compared, with trained weights."""
        self._compared.add(name)

    def stop(self) -> None:
        """Let something stand in for them from now on, where their own part was compared."""
        if self.running:
            self.names &= self._compared
            self.running = False

    def release(self) -> bool:
        """Treat layers as all others if something else read their parameters in a run, too."""
        read = {name for name in self.names if self._storages[name] & self._reads}
        self.names -= read
        return bool(read)

    def _call(
        self,
        name: str,
        dim: int,
        run: Callable[[Tensor], Tensor],
        stand_in: nn.Module,
        silent: Tensor | None,
        input: Tensor,
    ) -> Tensor:
        if name not in self.names:
            return run(input)
        own = self._storages[name]
        self.used |= own
        if not self.running:
            self.input = input
            output: Tensor = stand_in(input)
            return output
        before = self._reads & own
        output = run(input if silent is None else input.index_fill(dim, silent, 0))
        self._reads -= own - before
        return output


def layer_dim(layer: nn.Module) -> int:
    """`channel_dim` of a layer that has one."""
    dim = channel_dim(layer)
    assert dim is not None
    return dim


def channel_dim(layer: nn.Module) -> int | None:
    """The dimension of a layer's output that its own channels are on; None: it has none."""
    if isinstance(layer, _ConvNd):
        return -1 - len(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return -1
    if isinstance(layer, _BatchNorm) or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1):
        return 1
    return None


def _is_plain(layer: Any) -> bool:
    """Whether it computes what its class says, from all its inputs, and nothing beside."""
    return (
        type(layer) in PRODUCERS
        and getattr(layer, "groups", 1) == 1
        and "forward" not in vars(layer)
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


class _OneFilter(nn.Module):
    """In place of a layer: its output's shape at the price of one channel."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        settings = {key: getattr(layer, key) for key in same if hasattr(layer, key)}
        self.filter = skip_init(type(layer), 1, 1, bias=False, **settings)  # type: ignore[no-untyped-call]
        self.channels, self.dim = len(layer.weight), layer_dim(layer)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.filter(x.narrow(self.dim, 0, 1))
        shape = list(output.shape)
        shape[self.dim] = self.channels
        return output.expand(shape)
