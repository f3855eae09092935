"""Residual blocks that are emptied: all that is left of one is what it adds, a constant.

Without a channel on its way, the branch of a block with an identity shortcut gives one value a
channel, whatever the image. That is told from how a block behaves, not from its class.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from yolox.models.network_blocks import ChannelShift
from yolox.pruning.balance import bundles
from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.proof.apart import flatten, outputs_apart
from yolox.pruning.proof.redraw import redraw
from yolox.pruning.proof.twins import WORST_TOLERANCE
from yolox.pruning.surgery import Removed, removed_channels, silence
from yolox.pruning.watch import one_line
from yolox.utils.model_utils import copy_model
from yolox.utils.threads import single_threaded

TOLERANCE = 1e-9  # relative, in float64


def find_blocks(model: nn.Module, groups: Sequence[Group], example_input: Tensor) -> dict[str, str]:
    """Groups without which a residual block adds a constant, and the name of that block.

    Args:
        model: not touched.
        groups: of the model.
        example_input: float (1, 3, H, W).
    """
    double = copy_model(model).cpu().double().eval()
    example = example_input.detach().cpu().double()
    candidates = {}
    for numbers in bundles(groups):
        group = groups[numbers[0]]
        layers = [f"/{member.name.replace('.', '/')}" for member in group.members]
        block = os.path.commonpath(layers)[1:].replace("/", ".")
        if len(numbers) == 1 and block and all(member.name != block for member in group.members):
            candidates[group.name] = block
    inputs = _inputs(double, set(candidates.values()), example)
    found = {}
    for group in groups:
        block = candidates.get(group.name, "")
        alone = [(m.name, m.axis, torch.from_numpy(m.index.ravel())) for m in group.members]
        if block and _constant(double, alone, block, inputs.get(block)) is not None:
            found[group.name] = block
    return found


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
            with an identity shortcut, or the model needs more of such a block than what it adds.
    """
    whole = [group for group in groups if len(plan.removed.get(group.name, ())) == group.size]
    if not whole:
        return copy_model(model)
    blocks = find_blocks(model, whole, example_input)
    if odd := [group.name for group in whole if group.name not in blocks]:
        raise PruningError(
            f"the plan takes all channels of {', '.join(odd[:3])}, which is not the branch of a "
            "block with an identity shortcut: leave it one channel"
        )
    names = sorted(set(blocks.values()))
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    removed = list(removed_channels(groups, plan))
    double = copy_model(model).cpu().double().eval()
    example = example_input.detach().cpu().double()
    inputs = _inputs(double, set(outer), example)
    constants = {}
    for block in outer:
        constant = _constant(double, removed, block, inputs.get(block))
        assert constant is not None  # as with the channels of one group alone
        constants[block] = constant
    _check(double, _replaced(double, constants), removed, example)
    return _replaced(model, constants)


def plan_of_rest(plan: PruningPlan, groups: Sequence[Group], left: Sequence[Group]) -> PruningPlan:
    """The plan without the groups that went as a whole, in terms of the groups that are left.

    Args:
        plan: which slots go.
        groups: of the model that the plan was made for.
        left: of the model whose blocks are emptied. What only such a block tied together or kept
            may go by itself there.

    Raises:
        PruningError: without the blocks channels are tied that the plan does not take together.
    """
    gone = {
        (member.name, channel)
        for group in groups
        for member in group.producers
        for channel in member.index[list(plan.removed.get(group.name, ()))].ravel().tolist()
    }
    removed = {}
    for group in left:
        slots = []
        for slot in range(group.size):
            row = {(m.name, channel) for m in group.producers for channel in m.index[slot].tolist()}
            if row <= gone:
                slots.append(slot)
            elif row & gone:
                raise PruningError(
                    f"without its emptied blocks the model ties channels of {group.name} that the "
                    "plan does not take together: leave these blocks one channel"
                )
        if slots:
            removed[group.name] = tuple(slots)
    sizes = {group.name: group.size for group in left}
    return PruningPlan(removed=removed, sizes=sizes, config=plan.config)


def _replaced(model: nn.Module, constants: Mapping[str, Tensor]) -> nn.Module:
    """A copy in which these blocks add constants, under whichever names they are used."""
    emptied = copy_model(model)
    for name, constant in constants.items():
        block = emptied.get_submodule(name)
        shift = ChannelShift(len(constant)).to(next(block.parameters())).train(block.training)
        with torch.no_grad():
            shift.bias.copy_(constant)
        for parent in list(emptied.modules()):
            for key, child in list(parent._modules.items()):
                if child is block:
                    setattr(parent, key, shift)
    return emptied


@torch.no_grad()
def _check(
    model: nn.Module, emptied: nn.Module, removed: Sequence[Removed], example: Tensor
) -> None:
    """Raise `PruningError` unless both compute the same where nothing reads what is removed."""
    masked = copy_model(model)
    silence(masked, removed)
    left = dict(emptied.named_modules())
    silence(emptied, [entry for entry in removed if entry[0] in left])
    with single_threaded():
        expected = flatten(masked(example.clone()))
        try:
            apart = outputs_apart(flatten(emptied(example.clone())), expected)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise PruningError(
                f"the model does not run with emptied blocks: {one_line(error)}. Leave these "
                "blocks one channel"
            ) from error
    if apart > WORST_TOLERANCE:
        raise PruningError(
            f"the model with emptied blocks differs from the masked one by {apart:.1e}, so the cut "
            "is refused: leave these blocks one channel"
        )


@torch.no_grad()
def _inputs(model: nn.Module, names: set[str], example: Tensor) -> dict[str, Tensor | None]:
    """What each of these modules is first called with; None: not always with one tensor alone."""
    found: dict[str, Tensor | None] = {}

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) != 1 or not isinstance(args[0], Tensor) or kwargs:
            found[name] = None
        elif name not in found:
            found[name] = args[0].clone()

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, kwargs, name=name: note(name, args, kwargs), with_kwargs=True
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
def _constant(
    model: nn.Module, removed: Sequence[Removed], block: str, x: Tensor | None
) -> Tensor | None:
    """What a block adds (channels,) without channels, or None if that depends on its input.

    It must not depend on it with other weights either: a branch may be dead by chance.
    """
    if x is None:
        return None
    inner = [
        (name.removeprefix(f"{block}."), axis, channels)
        for name, axis, channels in removed
        if name.startswith(f"{block}.")
    ]
    constant = None
    for draw in (1, 0):
        masked = copy_model(model.get_submodule(block))
        if draw:
            redraw(masked, draw)
        silence(masked, inner)
        constant = _added(masked, x)
        if constant is None:
            return None
    return constant


def _added(block: nn.Module, x: Tensor) -> Tensor | None:
    """What a block adds (channels,) to its input, or None if that depends on it."""
    generator = torch.Generator().manual_seed(0)
    constant: Tensor | None = None
    for image in (x, torch.randn(x.shape, generator=generator, dtype=x.dtype)):
        with single_threaded():
            output = block(image.clone())
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
