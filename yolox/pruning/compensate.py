"""Accuracy kept without training: what the remaining weights can take over from removed channels.

All of it happens on the model at its old size, before the cut: the parameters of layers that read
removed channels change, and the pruned model is then cut from the result.

Shapes: N images; S sampled positions; I inputs, O outputs, K kernel area of a convolution; R its
kept outputs, P = kept inputs × K; G separate systems, one a channel of a depthwise convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.groups import PRODUCERS, Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.surgery import mask_plan, removed_channels
from yolox.pruning.watch import fixed_layers
from yolox.utils.model_utils import copy_model

MAX_SAMPLES = 16_384  # positions of a feature map, over all images, that a layer is refitted on
CONSTANT_DEVIATION = (
    0.05  # deviation of what a batch norm sends out, up to which a channel is a constant
)
ROUNDING_DIFFERENCE = 1e-4  # relative difference of outputs that is rounding
MIN_RIDGE = 1e-12
RIDGE = 0.1  # pull of the old weights, relative to the mean square of the inputs


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
    following = _following_norms(model, example_input)
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


def _following_norms(model: nn.Module, example_input: Tensor) -> dict[str, str]:
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


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What a convolution of the whole model puts out at sampled positions."""

    positions: tuple[Tensor, Tensor, Tensor]  # image, row, column, each (S,)
    outputs_SO: Tensor


# Without TF32, whose rounding would be taken for what the removal did.
@torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
@torch.no_grad()
def refit(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    images: Tensor,
    *,
    start: nn.Module | None = None,
    reconstruct: bool = True,
    recalibrate: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Fit the layers behind removed channels to what the whole model computes on real images.

    Both models see the images once, as one batch; the pruned one's layers are corrected as they are
    reached, so that each sees inputs that are already corrected. No gradient is taken.

    Args:
        model: the whole model.
        groups: all groups of the model.
        plan: what is removed from them.
        images: float (N, 3, H, W), on the device to compute on. Activations of all of them are held
            at once.
        start: `model` after `absorb_constants`, where that was done.
        reconstruct: each convolution's weights on the kept inputs, and its constant, become the
            ridge regression of its old output at sampled positions (He et al. 2017,
            arXiv:1707.06168), each channel for itself in a depthwise one.
        recalibrate: each batch norm's running mean and variance follow the change that the removal
            makes on these images. Nothing changes where nothing was removed, unlike with statistics
            taken from these images alone.
        seed: decides the sampled positions.

    Returns:
        A copy of the model, of the same size; the arguments are not touched.
    """
    images = images.float()
    whole = copy_model(model).to(images.device).float().eval()
    following = _following_norms(model, images[:1])
    targets, moments = _observe(whole, images, seed)
    fitted = mask_plan(start or model, groups, plan).to(images.device).float().eval()
    gone = {(name, axis): channels for name, axis, channels in removed_channels(groups, plan)}

    def fit_convolution(name: str, layer: nn.Conv2d, x: Tensor) -> None:
        kept = _kept(layer.in_channels, gone.get((name, "in")), x.device)
        rows = _kept(layer.out_channels, gone.get((name, "out")), x.device)
        can_shift = layer.bias is not None or name in following
        shift = _regress(layer, x, targets[name], kept, rows, can_shift)
        if shift is None or not can_shift:
            return
        if layer.bias is not None:
            layer.bias[rows] = whole.get_parameter(f"{name}.bias")[rows] + shift
        else:
            norm = following[name]
            old = whole.get_buffer(f"{norm}.running_mean")
            fitted.get_buffer(f"{norm}.running_mean")[rows] = old[rows] - shift

    def fit_norm(name: str, layer: _BatchNorm, x: Tensor) -> None:
        mean, variance = _moments(x)
        old_mean, old_variance = moments[name]
        old = whole.get_submodule(name)
        assert isinstance(old.running_mean, Tensor)
        assert isinstance(old.running_var, Tensor)
        ratio = (variance + layer.eps) / (old_variance + layer.eps)
        # The normalised values keep their mean and their variance.
        layer.running_mean = mean - (old_mean - old.running_mean) * ratio.sqrt()
        layer.running_var = old.running_var * ratio

    for name, layer in fitted.named_modules():
        if reconstruct and name in targets:
            _before(layer, partial(fit_convolution, name))
        elif recalibrate and name in moments:
            _before(layer, partial(fit_norm, name))
    fitted(images)
    refitted = copy_model(model)
    refitted.load_state_dict(fitted.state_dict())
    return refitted


def _before(layer: nn.Module, act: Callable[[Any, Tensor], None]) -> None:
    """Call `act` with a layer and its input each time before it runs."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        act(module, args[0])

    layer.register_forward_pre_hook(hook)


def _observe(
    whole: nn.Module, images: Tensor, seed: int
) -> tuple[dict[str, _Target], dict[str, tuple[Tensor, Tensor]]]:
    """Sampled outputs of each dense convolution, and the moments of each batch norm's input."""
    targets: dict[str, _Target] = {}
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    runs: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(seed)
    watched = copy_model(whole)
    fixed = fixed_layers(whole)  # such a weight is not the layer's own to fit

    def sample(name: str, output: Tensor) -> None:
        runs[name] += 1
        count, _, height, width = output.shape
        total = count * height * width
        flat = torch.randint(total, (min(MAX_SAMPLES, total),), generator=generator).to(
            output.device
        )
        rest = flat % (height * width)
        positions = (flat // (height * width), rest // width, rest % width)
        outputs = output[positions[0], :, positions[1], positions[2]]
        targets[name] = _Target(positions=positions, outputs_SO=outputs)

    def measure(name: str, _layer: nn.Module, x: Tensor) -> None:
        runs[name] += 1
        moments[name] = _moments(x)

    for name, layer in watched.named_modules():
        if isinstance(layer, nn.Conv2d) and _refittable(layer) and name not in fixed:
            layer.register_forward_hook(lambda _m, _a, out, name=name: sample(name, out))
        elif isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            _before(layer, partial(measure, name))
    watched(images)
    # A layer that runs at several places has no one output to be fitted to.
    once = {name for name, count in runs.items() if count == 1}
    return (
        {name: target for name, target in targets.items() if name in once},
        {name: moment for name, moment in moments.items() if name in once},
    )


def _refittable(layer: nn.Conv2d) -> bool:
    dense = layer.groups == 1
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    return (
        (dense or depthwise)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel (C,) of (N, C, …)."""
    variance, mean = torch.var_mean(x, dim=[0, *range(2, x.dim())], correction=0)
    return mean, variance


def _kept(size: int, gone: Tensor | None, device: torch.device) -> Tensor:
    kept = torch.ones(size, dtype=torch.bool)
    if gone is not None:
        kept[gone] = False
    return kept.nonzero().squeeze(1).to(device)


def _regress(
    layer: nn.Conv2d, x: Tensor, target: _Target, kept: Tensor, rows: Tensor, can_shift: bool
) -> Tensor | None:
    """Refit a convolution's kept weights to the target, in place.

    Returns:
        The constant to add to its output without bias, (rows,); None where it needed no change.
    """
    patches_SIK = _patches(layer, x, target.positions)
    wanted_SR = target.outputs_SO[:, rows]
    if layer.bias is not None:
        wanted_SR = wanted_SR - layer.bias[rows]
    if layer.groups > 1:
        # A depthwise convolution: each output has one input, and each its own small system.
        patches_GSP = patches_SIK[:, rows].transpose(0, 1)
        weight_GRP = layer.weight[rows].flatten(2)
        wanted_GSR = wanted_SR.T.unsqueeze(2)
    else:
        patches_GSP = patches_SIK[:, kept].flatten(1).unsqueeze(0)
        weight_GRP = layer.weight[rows][:, kept].flatten(1).unsqueeze(0)
        wanted_GSR = wanted_SR.unsqueeze(0)
    missing_GSR = wanted_GSR - patches_GSP @ weight_GRP.mT
    whole = layer.groups > 1 or len(kept) == layer.in_channels
    if whole and missing_GSR.abs().max() <= ROUNDING_DIFFERENCE * wanted_GSR.abs().max():
        return None
    change_GPR = _ridge(patches_GSP, missing_GSR, center=can_shift)
    weight = layer.weight[rows]
    change = change_GPR.mT.reshape(len(rows), -1, *layer.kernel_size)
    if layer.groups > 1:
        weight += change
    else:
        weight[:, kept] += change
    layer.weight[rows] = weight
    left_GR = missing_GSR.mean(dim=1) - (patches_GSP.mean(dim=1, keepdim=True) @ change_GPR)[:, 0]
    return left_GR.flatten()


def _ridge(inputs_GSP: Tensor, outputs_GSR: Tensor, *, center: bool) -> Tensor:
    """Weights (G, P, R) of a ridge regression each, with a free constant where centered."""
    if center:
        inputs_GSP = inputs_GSP - inputs_GSP.mean(dim=1, keepdim=True)
    gram_GPP = (inputs_GSP.mT @ inputs_GSP).double()
    diagonal_GP = gram_GPP.diagonal(dim1=1, dim2=2)
    ridge_G1 = RIDGE * diagonal_GP.mean(dim=1, keepdim=True)
    diagonal_GP += ridge_G1.clamp(min=MIN_RIDGE)
    product_GPR = (inputs_GSP.mT @ outputs_GSR).double()
    return torch.cholesky_solve(product_GPR, torch.linalg.cholesky(gram_GPP)).float()


def _patches(layer: nn.Conv2d, x: Tensor, positions: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The inputs (S, I, K) under a convolution's kernel at some of its output positions."""
    pad_h, pad_w = (int(p) for p in layer.padding)
    padded = nn.functional.pad(x, (pad_w, pad_w, pad_h, pad_h))
    image, row, column = positions
    taps = [
        padded[
            image,
            :,
            row * layer.stride[0] + i * layer.dilation[0],
            column * layer.stride[1] + j * layer.dilation[1],
        ]
        for i in range(layer.kernel_size[0])
        for j in range(layer.kernel_size[1])
    ]
    return torch.stack(taps, dim=2)
