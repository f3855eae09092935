"""Residual blocks that are emptied: all that is left of one is what it adds, a constant.

Without a channel on its way, the branch of a block with an identity shortcut gives one value a
channel, whatever the image. That is told from how a block behaves, not from its class.
"""

from __future__ import annotations

import copy
import os.path
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from yolox.models.network_blocks import ChannelShift
from yolox.pruning.balance import bundles
from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.utils.threads import single_threaded

TOLERANCE = 1e-9  # relative, in float64


def find_blocks(model: nn.Module, groups: Sequence[Group], example_input: Tensor) -> dict[str, str]:
    """Groups without which a residual block adds a constant, and the name of that block.

    Args:
        model: not touched.
        groups: of the model.
        example_input: float (1, 3, H, W).
    """
    double = copy.deepcopy(model).cpu().double().eval()
    example = example_input.detach().cpu().double()
    candidates = {}
    for numbers in bundles(groups):
        group = groups[numbers[0]]
        layers = [f"/{member.name.replace('.', '/')}" for member in group.members]
        block = os.path.commonpath(layers)[1:].replace("/", ".")
        if len(numbers) == 1 and block:
            candidates[group.name] = block
    inputs = _inputs(double, set(candidates.values()), example)
    return {
        group.name: candidates[group.name]
        for group in groups
        if group.name in candidates
        and (x := inputs.get(candidates[group.name])) is not None
        and _constant(double, group, candidates[group.name], x) is not None
    }


def empty_blocks(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> nn.Module:
    """A copy in which what adds nothing but a constant without the plan's channels is a constant.

    Args:
        model: not touched.
        groups: of the model.
        plan: which groups go as a whole is read from it.
        example_input: float (1, 3, H, W).

    Raises:
        PruningError: the plan takes all channels of a layer that is not in the branch of a block
            with an identity shortcut.
    """
    emptied = copy.deepcopy(model)
    whole = [group for group in groups if len(plan.removed.get(group.name, ())) == group.size]
    blocks = find_blocks(model, whole, example_input) if whole else {}
    if odd := [group.name for group in whole if group.name not in blocks]:
        raise PruningError(
            f"the plan takes all channels of {', '.join(odd[:3])}, which is not the branch of a "
            "block with an identity shortcut: leave it one channel"
        )
    double = copy.deepcopy(model).cpu().double().eval()
    inputs = _inputs(double, set(blocks.values()), example_input.detach().cpu().double())
    for group in whole:
        block = blocks[group.name]
        constant = _constant(double, group, block, inputs[block])
        assert constant is not None
        first = next(emptied.get_submodule(block).parameters())
        shift = ChannelShift(len(constant)).to(first)
        with torch.no_grad():
            shift.bias.copy_(constant)
        parent, _, name = block.rpartition(".")
        shift.train(emptied.get_submodule(block).training)
        setattr(emptied.get_submodule(parent), name, shift)
    return emptied


def plan_of_rest(plan: PruningPlan, groups: Sequence[Group], left: Sequence[Group]) -> PruningPlan:
    """The plan without the groups that went as a whole, in terms of the groups that are left.

    Args:
        plan: which slots go.
        groups: of the model that the plan was made for.
        left: of the model whose blocks are emptied. Their slots lie in the same order.
    """
    owner = {
        (member.name, tuple(member.index[0].tolist())): group
        for group in groups
        for member in group.producers
    }
    removed = {}
    for group in left:
        first = group.producers[0]
        old = owner[first.name, tuple(first.index[0].tolist())]
        assert old.size == group.size
        if slots := plan.removed.get(old.name):
            removed[group.name] = slots
    sizes = {group.name: group.size for group in left}
    return PruningPlan(removed=removed, sizes=sizes, config=plan.config)


@torch.no_grad()
def _inputs(model: nn.Module, names: set[str], example: Tensor) -> dict[str, Tensor]:
    """What each of these modules is called with, where that is one tensor."""
    found: dict[str, Tensor] = {}

    def note(name: str, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor):
            found[name] = args[0].clone()

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: note(name, args)
        )
        for name in names
    ]
    try:
        with single_threaded():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def _constant(model: nn.Module, group: Group, block: str, x: Tensor) -> Tensor | None:
    """What a block adds (channels,) without a group, or None if that depends on its input."""
    masked = copy.deepcopy(model.get_submodule(block))
    for member in group.members:
        if member.axis == "in":
            inner = member.name.removeprefix(f"{block}.")
            masked.get_parameter(f"{inner}.weight")[:, member.index.ravel().tolist()] = 0
    generator = torch.Generator().manual_seed(0)
    constant: Tensor | None = None
    for image in (x, torch.randn(x.shape, generator=generator, dtype=x.dtype)):
        with single_threaded():
            output = masked(image.clone())
        if not isinstance(output, Tensor) or output.shape != image.shape or image.dim() != 4:
            return None
        added = output - image
        own = added.mean((0, 2, 3))
        scale = float(output.abs().max().clamp(min=1e-300))
        if float((added - own[:, None, None]).abs().max()) > TOLERANCE * scale:
            return None
        if constant is not None and float((own - constant).abs().max()) > TOLERANCE * scale:
            return None
        constant = own
    return constant
