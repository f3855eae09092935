"""Channel labels that travel with a model's tensors as it runs.

What moves data (cat, split, view, permute, pixel shuffle) is run on the labels as well, and so says
by itself where each channel went. What works value by value ties the labels that meet in it. A
layer ties what reaches it to its input channels and sends out its own. Whatever else reads a label
pins it: that channel stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolox.pruning.channels import CONSTANT, Channels, Indices
from yolox.pruning.groups import PRODUCERS
from yolox.pruning.tracing.label_rules import (
    ALONG,
    COPIES,
    ELEMENTWISE,
    MOVES,
    REDUCTIONS,
    UNREAD,
    VIEWS,
    WINDOWS,
)
from yolox.pruning.tracing.labels import (
    compact,
    dims_of,
    filled_dims,
    is_same_tensor,
    label_of,
    put_label,
    reshaped,
    shares_storage,
    spread_for_cat,
    spread_label,
    tensors_of,
    varying_dims,
)

# In the place of an operation that keeps channels.
MODEL_INPUT, MODEL_OUTPUT = "the model's input", "the model's output"


@dataclass(frozen=True, kw_only=True)
class _Call:
    """An operation as it was called, the tensors among its arguments, and its result."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    out: Any

    @property
    def op(self) -> str:
        """The operation's name."""
        return str(self.func.overloadpacket.__name__)

    @property
    def outputs(self) -> list[Tensor]:
        """The tensors of the result."""
        return list(tensors_of(self.out))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by its place or its name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


class LabelTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the channels of a model as it runs within this context, in evaluation mode.

    Args:
        model: whose parameters the labels are put on; a copy, as its tensors are marked.
        channels: with the ports of its layers; what is seen is added.
    """

    def __init__(self, model: nn.Module, channels: Channels) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._channels = channels
        self._layers = {name: model.get_submodule(name) for name, _ in channels.ports}
        self._owners: dict[int, str] = {}  # by the address of a weight
        self._op = ""  # that is followed
        for name, layer in self._layers.items():
            out = torch.from_numpy(channels.ports[name, "out"])
            if isinstance(layer, PRODUCERS):
                for parameter in layer.parameters(recurse=False):
                    self._owners[parameter.untyped_storage().data_ptr()] = name
                continue
            for vector in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if vector.dim() == 1:  # one value a channel
                    put_label(vector, out)

    def pin_outputs(self, outputs: Any) -> None:
        """The channels that a model gives to its caller stay."""
        for tensor in tensors_of(outputs):
            self._pin(tensor, MODEL_OUTPUT)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = list(tensors_of((args, kwargs)))
        if any(label_of(tensor) is not None or self._owner(tensor) for tensor in inputs):
            call = _Call(func=func, args=args, kwargs=kwargs or {}, inputs=inputs, out=out)
            self._op = call.op
            self._follow(call)
        return out

    def _owner(self, tensor: Tensor) -> str:
        """The layer whose weight or bias a tensor is, or is a view of."""
        return self._owners.get(tensor.untyped_storage().data_ptr(), "")

    def _follow(self, call: _Call) -> None:
        op, inputs, out = call.op, call.inputs, call.out
        if op in UNREAD:
            return
        if op == "convolution" and self._convolve(*call.args, output=out):
            return
        if op in ("addmm", "mm") and self._multiply(call.args, out):
            return
        if not shares_storage(inputs, out):
            for name in {self._owner(tensor) for tensor in inputs} - {""}:
                self._pin_layer(name)  # something reads a weight that is not its layer
        if op in COPIES:
            put_label(call.outputs[0], label_of(inputs[0]))
        elif torch.Tag.pointwise in call.func.tags or op in ELEMENTWISE:
            for tensor in call.outputs:
                self._note(inputs)
                put_label(tensor, self._meet(inputs, tensor.dim()))
        elif op in MOVES:
            self._move(call)
        elif op == "constant_pad_nd":
            rank = inputs[0].dim()
            padded = [rank - 1 - place // 2 for place, width in enumerate(call.args[1]) if width]
            self._reduce(call, padded or [-1])
        elif op == "pixel_shuffle":
            self._shuffle_pixels(inputs[0], out)
        elif op in ("channel_shuffle", "native_channel_shuffle"):
            self._shuffle_channels(inputs[0], call.args[1], out)
        elif op in WINDOWS:
            self._reduce(call, range(-WINDOWS[op], 0))
        elif op in REDUCTIONS:
            self._reduce(call, call.argument(REDUCTIONS[op], "dim"))
        elif op in ALONG:
            self._reduce(call, call.argument(ALONG[op], "dim", -1))
        elif "batch_norm" in op:
            self._normalize(inputs, out)
        else:
            for tensor in inputs:
                self._pin(tensor)

    # What the layers do.

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any, output: Tensor
    ) -> bool:
        name = self._owner(weight)
        layer: Any = self._layers.get(name)
        if layer is None or not is_same_tensor(weight, layer.weight) or weight.dim() != x.dim():
            return False
        into, out = self._channels.ports[name, "in"], self._channels.ports[name, "out"]
        if bias is not None and self._owner(bias) != name:
            self._channels.pin(out, f"{self._op} with a bias of another module")
        self._read(x, 1, into)
        put_label(output, torch.from_numpy(out).reshape(1, -1, *[1] * (output.dim() - 2)))
        return True

    def _multiply(self, args: tuple[Any, ...], output: Tensor) -> bool:
        x, weight = args[-2:]
        name = self._owner(weight)
        layer = self._layers.get(name)
        if not isinstance(layer, nn.Linear) or not is_same_tensor(weight, layer.weight.t()):
            return False
        out = self._channels.ports[name, "out"]
        if len(args) == 3 and self._owner(args[0]) != name:
            self._channels.pin(out, f"{self._op} with a bias of another module")
        self._read(x, 1, self._channels.ports[name, "in"])
        put_label(output, torch.from_numpy(out).reshape(1, -1))
        return True

    def _read(self, x: Tensor, dim: int, port: Indices) -> None:
        """A layer takes in a tensor whose channels are along a dimension."""
        label = label_of(x)
        if label is None or varying_dims(label) - {dim}:
            self._pin(x)
            self._channels.pin(port, MODEL_INPUT if label is None else self._op)
            return
        read = label.flatten().expand(len(port)).numpy()
        self._channels.tie(read, port)
        self._channels.pin(port[read == CONSTANT], "constant values beside it")

    def _normalize(self, inputs: Sequence[Tensor], out: Any) -> None:
        """Batch norm: statistics and scales of one value a channel."""
        x, *vectors = inputs
        label = label_of(x)
        if label is None or varying_dims(label) - {1}:
            for tensor in inputs:
                self._pin(tensor)
            return
        shape = (1, -1, *[1] * (x.dim() - 2))
        rows = [reshaped(vector, shape) for vector in vectors if vector.numel()]
        put_label(next(tensors_of(out)), self._meet([x, *rows], x.dim()))

    # What lies between them.

    def _meet(self, inputs: Sequence[Tensor], rank: int) -> Tensor | None:
        """Tie the labels of values that meet; returns those of the result."""
        labels = {
            number: own.reshape([1] * (rank - own.dim()) + list(own.shape))
            for number, tensor in enumerate(inputs)
            if (own := label_of(tensor)) is not None
        }
        varying = {d - rank for label in labels.values() for d in varying_dims(label)}
        joint: Tensor | None = None
        for number, tensor in enumerate(inputs):
            label = labels.get(number)
            spread = bool(varying - filled_dims(tensor))
            if label is not None and not spread:
                joint = label if joint is None else self._join(joint, label)
            elif label is not None:  # one channel meets many: all of them need it
                self._pin(tensor, f"{self._op} with every channel of another tensor")
        if joint is None:
            return None
        for number, tensor in enumerate(inputs):
            if number not in labels and varying & filled_dims(tensor):
                self._channels.pin(joint.flatten().numpy(), f"{self._op} with a tensor of its own")
        return joint

    def _join(self, joint: Tensor, label: Tensor) -> Tensor:
        if joint is label or (joint.shape == label.shape and torch.equal(joint, label)):
            return joint
        shape = [max(sizes) for sizes in zip(joint.shape, label.shape, strict=True)]
        left, right = joint.expand(shape), label.expand(shape)
        a, b = left.flatten().numpy(), right.flatten().numpy()
        self._channels.tie(a, b)
        self._channels.pin(np.concatenate((a[b == CONSTANT], b[a == CONSTANT])), self._op)
        return compact(torch.where(left == CONSTANT, right, left))

    def _move(self, call: _Call) -> None:
        """Run what moves data on the labels."""
        joins = call.op in ("cat", "stack")
        moved = call.inputs if joins else call.inputs[:1]
        label = label_of(moved[0])
        if any(label_of(tensor) is not None for tensor in call.inputs[len(moved) :]) or (
            label is not None and not self._follows(call, label)
        ):
            for tensor in call.inputs:
                self._pin(tensor)
            return
        if joins:
            result = call.func(self._joined(call, moved), *call.args[1:], **call.kwargs)
        elif call.op in VIEWS:  # labels that are spread need not lie as a view wants them to
            result = spread_label(moved[0]).reshape(call.args[1])
        else:
            result = call.func(spread_label(moved[0]), *call.args[1:], **call.kwargs)
        for tensor, own in zip(call.outputs, tensors_of(result), strict=True):
            put_label(tensor, compact(own))
        self._note(moved)
        if label is not None:
            self._hold_parts(call, label)

    def _joined(self, call: _Call, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Labels of tensors that are laid beside each other, in shapes that fit."""
        if call.op == "stack":
            return self._beside([spread_label(tensor) for tensor in tensors], None)
        rank = tensors[0].dim()
        dim = call.argument(1, "dim", 0) % rank
        same = [tensor for tensor in tensors if tensor.dim() == rank]  # not the empty one of old
        return self._beside(spread_for_cat(same, dim), dim)

    def _beside(self, spread: list[Tensor], dim: int | None) -> list[Tensor]:
        """Tie channels that do not lie along the dimension on which tensors are joined.

        Args:
            spread: labels of the tensors.
            dim: None: a new one.
        """
        rows = spread if dim is None else [own.narrow(dim, 0, 1) for own in spread]
        joint = rows[0]
        if joint.numel() == 1:
            return spread
        for row in rows[1:]:
            joint = self._join(joint, row)
        if dim is not None and any(dim in varying_dims(compact(own)) for own in spread):
            return spread
        return [joint.expand(own.shape) for own in spread]

    def _follows(self, call: _Call, label: Tensor) -> bool:
        """Whether an operation may follow its input's channels: its arguments do not count them."""
        varying, rank = varying_dims(label), label.dim()
        if call.op in ("roll", "select", "unbind", "index_select", "unfold"):
            dims = call.argument(2 if call.op == "roll" else 1, "dim", 0)
            return not varying & dims_of(dims, rank)
        if call.op == "index":
            used = {dim: index for dim, index in enumerate(call.args[1]) if index is not None}
            masks = any(index.dtype in (torch.bool, torch.uint8) for index in used.values())
            return not (masks or varying & used.keys())
        if call.op == "view":
            return not isinstance(call.args[1], torch.dtype)
        return not (call.op == "pixel_unshuffle" and varying - {rank - 3})

    def _hold_parts(self, call: _Call, label: Tensor) -> None:
        """What lays channels apart needs as many of them in each part."""
        if call.op in VIEWS:
            self._hold_rows(label, label_of(call.outputs[0]))
        elif call.op == "slice" or "split" in call.op:
            dim = call.argument(1 if call.op == "slice" else 2, "dim", 0) % label.dim()
            if dim in varying_dims(label):
                self._hold_split(call, label, dim)

    def _hold_rows(self, label: Tensor, own: Tensor | None) -> None:
        """Two dimensions made of one: which of them a cut narrows is not known, so the last."""
        if own is None or len(varying_dims(own)) <= len(varying_dims(label)):
            return
        last = max(varying_dims(own))
        rows = own.movedim(last, -1).reshape(-1, own.shape[last]).numpy()
        for row in rows[1:]:
            self._channels.tie(rows[0], row)
        self._channels.positional.append(label.flatten().numpy())

    def _hold_split(self, call: _Call, label: Tensor, dim: int) -> None:
        size, ids = label.shape[dim], label.flatten().numpy()
        widths = {tensor.shape[dim] for tensor in call.outputs}
        if widths == {size}:
            return
        width = min(widths)
        even = len(widths) == 1 and width > 0 and size % width == 0
        if call.op == "slice":
            start, step = call.argument(2, "start") or 0, call.argument(4, "step", 1)
            even = even and step == 1 and start % width == 0
        if not even or len(varying_dims(label)) > 1 or (ids == CONSTANT).any():
            self._channels.pin(ids, call.op)
            return
        parts = list(ids.reshape(-1, width))
        known = (other for other in self._channels.parts if len(other) == len(parts))
        if not any(np.array_equal(parts, other) for other in known):
            self._channels.parts.append(parts)
            self._channels.positional.append(ids)

    def _shuffle_pixels(self, x: Tensor, out: Tensor) -> None:
        """(C · r², H, W) to (C, rH, rW): r² channels in a row become one."""
        label = label_of(x)
        rank = x.dim()
        if label is None or varying_dims(label) - {rank - 3}:
            self._pin(x)
            return
        rows = label.flatten().expand(x.shape[-3]).reshape(out.shape[-3], -1).numpy()
        for column in rows.T[1:]:
            self._channels.tie(rows[:, 0], column)
        self._channels.positional.append(rows.flatten())
        put_label(out, torch.from_numpy(rows[:, 0].copy()).reshape(*[1] * (rank - 3), -1, 1, 1))

    def _shuffle_channels(self, x: Tensor, groups: int, out: Tensor) -> None:
        label = label_of(x)
        if label is None or varying_dims(label) - {1}:
            self._pin(x)
            return
        rows = label.flatten().expand(x.shape[1]).reshape(groups, -1).numpy()
        for row in rows[1:]:
            self._channels.tie(rows[0], row)
        self._channels.positional.append(rows.flatten())
        moved = torch.from_numpy(rows.T.reshape(-1).copy())
        put_label(out, moved.reshape(1, -1, *[1] * (x.dim() - 2)))

    def _reduce(self, call: _Call, dims: Any) -> None:
        """Something is taken over, or along, dimensions: labels may not change on them."""
        x = call.inputs[0]
        label = label_of(x)
        over = dims_of(dims, x.dim())
        if label is None or varying_dims(label) & over:
            self._pin(x)
            return
        for tensor in call.outputs:
            if tensor.dim() == x.dim():
                put_label(tensor, label)
            elif tensor.dim() == x.dim() - len(over):
                sizes = [size for dim, size in enumerate(label.shape) if dim not in over]
                put_label(tensor, label.reshape(sizes))

    # Bookkeeping.

    def _pin(self, tensor: Tensor, why: str = "") -> None:
        label = label_of(tensor)
        if label is not None:
            self._channels.pin(label.flatten().numpy(), why or self._op)

    def _pin_layer(self, name: str) -> None:
        for (layer, _), port in self._channels.ports.items():
            if layer == name:
                self._channels.pin(port, f"{self._op} of its weight")

    def _note(self, tensors: Sequence[Tensor]) -> None:
        """That an operation is on the way of these tensors' channels."""
        for label in map(label_of, tensors):
            if label is not None:
                ids = label.flatten().numpy()
                self._channels.ops.setdefault(self._op, []).append(np.unique(ids[ids != CONSTANT]))
