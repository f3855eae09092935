"""Carry out a plan: a smaller model, or the same one with those channels silenced."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from yolox.pruning.groups import Axis, Group
from yolox.pruning.plan import PruningPlan


def removed_channels(
    groups: Sequence[Group], plan: PruningPlan
) -> Iterator[tuple[str, Axis, Tensor]]:
    """(module name, axis, channels to remove) of every layer that the plan touches, each once."""
    gone: dict[tuple[str, Axis], list[np.ndarray]] = {}
    for group in groups:
        slots = list(plan.removed.get(group.name, ()))
        if slots:
            for member in group.members:
                gone.setdefault((member.name, member.axis), []).append(member.index[slots].ravel())
    for (name, axis), parts in gone.items():
        yield name, axis, torch.from_numpy(np.unique(np.concatenate(parts)))


def apply_plan(model: nn.Module, groups: Sequence[Group], plan: PruningPlan) -> nn.Module:
    """A copy of the model without the plan's channels; the argument is not touched.

    Raises:
        PruningError: the plan is another model's, empties a layer, or removes nothing.
    """
    plan.check(groups)
    small = copy.deepcopy(model)
    for name, axis, channels in removed_channels(groups, plan):
        _cut(small.get_submodule(name), axis, channels)
    return small


def mask_plan(model: nn.Module, groups: Sequence[Group], plan: PruningPlan) -> nn.Module:
    """A copy of the model, of the same size, in which nothing reads the plan's channels.

    Silencing at the reader is exact for every activation: whatever a removed channel still holds,
    all weights that would take it in are 0.

    Raises:
        PruningError: as `apply_plan`.
    """
    plan.check(groups)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, axis, channels in removed_channels(groups, plan):
            if axis == "in":
                masked.get_parameter(f"{name}.weight")[:, channels] = 0
    return masked


def _cut(module: nn.Module, axis: Axis, channels: Tensor) -> None:
    """Remove channels of one layer on one axis, parameters, buffers and counts; in place."""
    dim = 1 if axis == "in" else 0
    size = _axis_size(module, axis)
    kept = torch.ones(size, dtype=torch.bool)
    kept[channels] = False
    index = kept.nonzero().squeeze(1)
    for name, tensor in [
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ]:
        if tensor.dim() <= dim or tensor.shape[dim] != size:
            continue  # a bias has no input axis, num_batches_tracked no axis at all
        smaller = tensor.detach().index_select(dim, index.to(tensor.device)).clone()
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(smaller, requires_grad=tensor.requires_grad))
        else:
            setattr(module, name, smaller)
    _set_axis_size(module, axis, len(index))


def _axis_size(module: nn.Module, axis: Axis) -> int:
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels if axis == "in" else module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features if axis == "in" else module.out_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    return module.num_features


def _set_axis_size(module: nn.Module, axis: Axis, size: int) -> None:
    if isinstance(module, nn.modules.conv._ConvNd):
        if axis == "in":
            module.in_channels = size
        else:
            module.out_channels = size
            if module.groups > 1:  # depthwise: one input and one group a filter
                module.in_channels = module.groups = size
    elif isinstance(module, nn.Linear):
        if axis == "in":
            module.in_features = size
        else:
            module.out_features = size
    elif isinstance(module, nn.PReLU):
        module.num_parameters = size
    else:
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        module.num_features = size
