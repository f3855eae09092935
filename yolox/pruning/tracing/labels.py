"""Labels on tensors: which channel each of their values comes from.

A label is an int64 tensor of its tensor's rank that holds numbers of channels, or `CONSTANT`.
Nearly all labels change along one dimension alone, so a label has size 1 along every dimension on
which it does not change. A tensor without a label is constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from yolox.pruning.channels import CONSTANT


def label_of(tensor: Tensor) -> Tensor | None:
    """int64, of the tensor's rank, with size 1 on dimensions without change; None: constant."""
    return getattr(tensor, "_channel_labels", None)


def put_label(tensor: Tensor, label: Tensor | None) -> None:
    """Mark a tensor; one that is constant as a whole stays without."""
    if label is not None and not (label.numel() == 1 and int(label) == CONSTANT):
        tensor._channel_labels = label  # type: ignore[attr-defined]


def is_same_tensor(tensor: Tensor, other: Tensor) -> bool:
    """Whether both are the same values at the same place."""
    same = tensor.data_ptr() == other.data_ptr()
    return same and tensor.shape == other.shape and tensor.stride() == other.stride()


def reshaped(vector: Tensor, shape: Sequence[int]) -> Tensor:
    """A vector as it is broadcast, with its labels."""
    row = vector.detach().reshape(shape)
    label = label_of(vector)
    put_label(row, None if label is None else label.reshape(shape))
    return row


def varying_dims(label: Tensor) -> set[int]:
    """The dimensions, counted from the first, on which a label changes."""
    return {dim for dim, size in enumerate(label.shape) if size > 1}


def filled_dims(tensor: Tensor) -> set[int]:
    """The dimensions, counted from the last, that a tensor fills rather than is spread over."""
    rank = tensor.dim()
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return {d - rank for d, (size, stride) in enumerate(sizes) if size > 1 and stride}


def dims_of(dims: Any, rank: int) -> set[int]:
    """Dimensions counted from the first, of one number, several, or none for all."""
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        return set(range(rank))
    return {d % max(rank, 1) for d in (dims if isinstance(dims, Iterable) else [dims])}


def spread_label(tensor: Tensor) -> Tensor:
    """A tensor's label in the tensor's own shape."""
    label = label_of(tensor)
    if label is None:
        label = torch.full([1] * tensor.dim(), CONSTANT)
    return label.expand(tensor.shape)


def spread_for_cat(tensors: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Labels as wide as they have to be to be laid beside each other along a dimension."""
    labels = [label_of(t) for t in tensors]
    rank = tensors[0].dim()
    shape = [max(1 if own is None else own.shape[d] for own in labels) for d in range(rank)]
    spread = []
    for tensor, own in zip(tensors, labels, strict=True):
        shape[dim] = tensor.shape[dim]
        whole = torch.full([1] * rank, CONSTANT) if own is None else own
        spread.append(whole.expand(shape))
    return spread


def compact(full: Tensor) -> Tensor:
    """The same labels with size 1 along every dimension on which they do not change."""
    for dim in range(full.dim()):
        if full.shape[dim] > 1:
            first = full.narrow(dim, 0, 1)
            if full.stride(dim) == 0 or bool((full == first).all()):
                full = first
    return full


def shares_storage(inputs: Iterable[Tensor], out: Any) -> bool:
    """Whether a result lies where one of the inputs does."""
    ours = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(out)}
    return any(tensor.untyped_storage().data_ptr() in ours for tensor in inputs)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of lists and dictionaries, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
