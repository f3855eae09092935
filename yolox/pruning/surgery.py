"""Carry out a plan: a smaller model, or the same one with those channels silenced."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from yolox.models.network_blocks import ChannelShift
from yolox.pruning.channels import Axis
from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.utils.model_utils import copy_model

AXIS_DIMS: dict[Axis, int] = {"in": 1, "out": 0}  # of a weight
Removed = tuple[str, Axis, Tensor]  # module name, axis, channels


def removed_channels(groups: Sequence[Group], plan: PruningPlan) -> Iterator[Removed]:
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
        PruningError: the plan is another model's, empties a layer (`blocks.empty_blocks` comes
            before), or removes nothing.
    """
    plan.check(groups)
    if empty := plan.emptied():
        raise PruningError(f"the plan empties {', '.join(empty[:3])}: no layer can be cut to that")
    small = copy_model(model)
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
    masked = copy_model(model)
    silence(masked, removed_channels(groups, plan))
    return masked


@torch.no_grad()
def silence(model: nn.Module, removed: Iterable[Removed], skip: Container[str] = ()) -> None:
    """`mask_plan` in place; parameters to `skip` are silent already."""
    for name, axis, channels in removed:
        if axis == "in" and f"{name}.weight" not in skip:
            weight = model.get_parameter(f"{name}.weight")
            weight.index_fill_(1, channels.to(weight.device), 0)


@torch.no_grad()
def copy_kept(
    small: nn.Module,
    whole: nn.Module,
    removed: Iterable[Removed],
    skip: Container[str] = (),
) -> None:
    """Give a model that the plan was applied to the values of one that is whole, in place.

    Args:
        small: that the plan was applied to; changed in place.
        whole: that values are taken from.
        removed: what the plan removes.
        skip: tensors that have their values already.

    Raises:
        PruningError: the small model has a tensor of another shape than the plan leaves.
    """
    values = _tensors(whole)
    cuts: dict[str, dict[int, Tensor]] = {}
    for name, axis, channels in removed:
        layer = whole.get_submodule(name)
        size, dim = _axis_size(layer, axis), AXIS_DIMS[axis]
        kept = kept_channels(size, channels)
        for key, tensor in _tensors(layer, recurse=False).items():
            if _has_axis(tensor, dim, size):
                cuts.setdefault(f"{name}.{key}", {})[dim] = kept
    for key, tensor in _tensors(small).items():
        if key in skip:
            continue
        shape = list(values[key].shape) if key in values else []
        for dim, kept in cuts.get(key, {}).items():
            shape[dim] = len(kept)
        if key not in values or list(tensor.shape) != shape:
            raise PruningError(
                f"{key} of the pruned model has shape {tuple(tensor.shape)}; the plan leaves "
                f"{tuple(shape) or 'none'}"
            )
        value = values[key]
        own_cuts = list(cuts.get(key, {}).items())
        for dim, kept in own_cuts[:-1]:
            value = value.index_select(dim, kept)
        if own_cuts:
            torch.index_select(value, *own_cuts[-1], out=tensor.detach())
        else:
            tensor.copy_(value)


def kept_channels(size: int, removed: Tensor) -> Tensor:
    """The channels that stay, of as many as there were."""
    kept = torch.ones(size, dtype=torch.bool)
    kept[removed] = False
    return kept.nonzero().squeeze(1)


def _tensors(module: nn.Module, *, recurse: bool = True) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {
        **dict(module.named_parameters(recurse=recurse)),
        **dict(module.named_buffers(recurse=recurse)),
    }


def _has_axis(tensor: Tensor, dim: int, size: int) -> bool:
    # A bias has no input axis, num_batches_tracked no axis at all.
    return tensor.dim() > dim and tensor.shape[dim] == size


def _cut(module: nn.Module, axis: Axis, channels: Tensor) -> None:
    """Remove channels of one layer on one axis, parameters, buffers and counts; in place."""
    dim, size = AXIS_DIMS[axis], _axis_size(module, axis)
    index = kept_channels(size, channels)
    for name, tensor in _tensors(module, recurse=False).items():
        if not _has_axis(tensor, dim, size):
            continue
        smaller = tensor.detach().index_select(dim, index.to(tensor.device)).clone()
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(smaller, requires_grad=tensor.requires_grad))
        else:
            setattr(module, name, smaller)
    _set_axis_size(module, axis, len(index))


def is_channelwise(module: nn.Module) -> bool:
    """Whether a module beside PyTorch's own has one value a channel and is cut with its input.

    That is what is left of a residual block, and a batch norm whose scales are buffers, whatever
    its class is called.
    """
    if isinstance(module, ChannelShift):
        return True
    names = {"weight", "bias", "running_mean", "running_var"}
    buffers = dict(module.named_buffers(recurse=False))
    return (
        not isinstance(module, nn.modules.batchnorm._BatchNorm)
        and names <= buffers.keys()
        and len({buffers[name].shape for name in names}) == 1
        and buffers["weight"].dim() == 1
        and not list(module.parameters(recurse=False))
    )


def _axis_size(module: nn.Module, axis: Axis) -> int:
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels if axis == "in" else module.out_channels
    if isinstance(module, nn.Linear):
        return module.in_features if axis == "in" else module.out_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.num_features
    assert is_channelwise(module)
    return len(module.bias)  # type: ignore[arg-type]


def _set_axis_size(module: nn.Module, axis: Axis, size: int) -> None:
    if isinstance(module, nn.modules.conv._ConvNd):
        if axis == "in":
            module.in_channels = size
        else:
            before, module.out_channels = module.out_channels, size
            if module.groups > 1:  # its groups go as a whole, with their inputs
                inputs = module.in_channels // module.groups
                module.groups = module.groups * size // before
                module.in_channels = module.groups * inputs
    elif isinstance(module, nn.Linear):
        if axis == "in":
            module.in_features = size
        else:
            module.out_features = size
    elif isinstance(module, nn.PReLU):
        module.num_parameters = size
    elif hasattr(module, "num_features"):  # not every class of frozen batch norms has it
        module.num_features = size  # type: ignore[assignment]
