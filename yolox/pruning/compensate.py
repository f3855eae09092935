"""Constants that removed channels leave behind, taken over by the layers that read them.

It happens on the model at its old size, before the cut: the parameters of layers that read
removed channels change, and the pruned model is then cut from the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.groups import PRODUCERS, Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.surgery import removed_channels
from yolox.utils.model_utils import copy_model

CONSTANT_DEVIATION = (
    0.05  # deviation of what a batch norm sends out, up to which a channel is a constant
)


@torch.no_grad()
def absorb_constants(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> nn.Module:
    """Let each reader of a removed channel take over the constant that the channel leaves behind.

    A channel whose batch norm has scale γ = 0 sends out its activation of the shift β at every
    position. Its readers see that constant through whatever lies between; times their weights it
    is added to the bias, or taken from the running mean of the batch norm behind. Exact where all
    batch norms on the slot have γ = 0, but for the border that a reader's padding with zeros
    touches. Slots with a larger γ than `CONSTANT_DEVIATION` are left out: their channels vary, a
    criterion judged them by what setting them to 0 costs, and their mean is that of the background.
    A reader with neither bias nor batch norm stays as it is.

    Returns:
        A copy of the model, of the same size; the argument is not touched.
    """
    plan = _still_part(model, groups, plan)
    if not any(plan.removed.values()):
        return copy_model(model)
    constants = _constants(model, groups, plan, example_input)
    following = following_norms(model, example_input)
    absorbed = copy_model(model)
    for name, axis, channels in removed_channels(groups, plan):
        if axis != "in" or name not in constants:
            continue
        weight = absorbed.get_parameter(f"{name}.weight")
        kernel_sums = weight.flatten(2).sum(dim=2) if weight.dim() > 2 else weight
        values = constants[name][channels].to(weight)
        shift = kernel_sums[:, channels.to(weight.device)] @ values
        _add_to_output(absorbed, name, following.get(name), shift)
    return absorbed


def _still_part(model: nn.Module, groups: Sequence[Group], plan: PruningPlan) -> PruningPlan:
    """The plan's slots whose channels hardly vary, by their batch norms or else their filters."""
    removed: dict[str, tuple[int, ...]] = {}
    for group in groups:
        slots = plan.removed.get(group.name, ())
        layers = [(model.get_submodule(m.name), m) for m in group.members if m.axis == "out"]
        norms = [pair for pair in layers if isinstance(pair[0], _BatchNorm)]
        sizes = torch.zeros(group.size)
        for layer, member in norms or layers:
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor):
                rows = weight.detach().float().cpu().reshape(len(weight), -1)
                size = rows.abs().amax(dim=1)
                sizes = torch.maximum(sizes, size[torch.from_numpy(member.index)].amax(dim=1))
        removed[group.name] = tuple(slot for slot in slots if sizes[slot] <= CONSTANT_DEVIATION)
    return PruningPlan(removed=removed, sizes=plan.sizes, config=plan.config)


def _constants(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> dict[str, Tensor]:
    """What each reader's inputs (I,) hold once the removed channels are made constant."""
    still = copy_model(model).float().cpu().eval()
    modules = dict(still.named_modules())
    for name, axis, channels in removed_channels(groups, plan):
        layer = modules[name]
        makes = isinstance(layer, PRODUCERS) and getattr(layer, "groups", 1) == 1
        if axis == "out" and (makes or isinstance(layer, _BatchNorm)) and layer.weight is not None:
            # Nothing of the signal is left: biases, shifts and activations make the constant.
            layer.weight[channels] = 0
    readers = {n for n, axis, _ in removed_channels(groups, plan) if axis == "in"}
    seen: dict[str, Tensor] = {}

    def look(name: str, x: Tensor) -> None:
        # The inside of the map: padding of depthwise layers on the way touches the borders.
        if isinstance(modules[name], nn.Linear):  # the last dimension holds the channels
            x = x.flatten(1, -2).transpose(1, 2) if x.dim() > 2 else x
        seen[name] = (x if x.dim() == 2 else x.flatten(2).median(dim=2).values)[0]

    for name in readers:
        modules[name].register_forward_pre_hook(lambda _m, args, name=name: look(name, args[0]))
    still(example_input.detach().cpu().float())
    return seen


def following_norms(model: nn.Module, example_input: Tensor) -> dict[str, str]:
    """The batch norm that reads a layer's output directly, by the layer's name."""
    twin = copy_model(model).float().cpu().eval()
    # The tensor is held, so that its id stays its own; in-place layers count up its version.
    made: dict[int, tuple[str, Tensor, int]] = {}
    following: dict[str, str] = {}

    def written(name: str, output: Tensor) -> None:
        made[id(output)] = (name, output, output._version)

    def read(name: str, x: Tensor) -> None:
        if id(x) in made and made[id(x)][2] == x._version:
            following[made[id(x)][0]] = name

    for name, module in twin.named_modules():
        if isinstance(module, PRODUCERS):
            module.register_forward_hook(lambda _m, _a, out, name=name: written(name, out))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.register_forward_pre_hook(lambda _m, args, name=name: read(name, args[0]))
    twin(example_input.detach().cpu().float())
    return following


def _add_to_output(model: nn.Module, name: str, norm: str | None, shift: Tensor) -> None:
    """Add a constant (O,) to a layer's output, in its bias or the norm behind it; in place."""
    layer = model.get_submodule(name)
    if isinstance(layer.bias, Tensor):
        layer.bias += shift
    elif norm is not None:
        model.get_buffer(f"{norm}.running_mean").sub_(shift)
