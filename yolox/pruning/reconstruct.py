"""The remaining weights fitted to what the whole model computes on real images.

It happens on the model at its old size, before the cut, as in `compensate`.

Shapes: N images; S sampled positions; I inputs, O outputs, K kernel area of a convolution; R its
kept outputs, P = kept inputs × K; G separate systems, one a channel of a depthwise convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from yolox.pruning.compensate import following_norms
from yolox.pruning.groups import Group
from yolox.pruning.importance import Loss
from yolox.pruning.plan import PruningPlan
from yolox.pruning.surgery import kept_channels, mask_plan, removed_channels
from yolox.pruning.watch import fixed_layers
from yolox.utils.model_utils import copy_model

MAX_SAMPLES = 16_384  # positions of a feature map, over all images, that a layer is refitted on
ROUNDING_DIFFERENCE = 1e-4  # relative difference of outputs that is rounding
MIN_RIDGE = 1e-12
RIDGE = 0.1  # pull of the old weights, relative to the mean square of the inputs
EVEN = 0.1  # share of the positions that is drawn evenly, the rest by their weights
_NONE = torch.empty(0, dtype=torch.long)
# Without TF32, whose rounding would be taken for what the removal did.
EXACT = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)

Counts = tuple[int | None, int | None]  # of images that convolutions and batch norms are fitted to
Positions = tuple[Tensor, Tensor, Tensor]  # image, row, column, each (S,)


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What a convolution of the whole model puts out at sampled positions."""

    positions: Positions
    outputs_SO: Tensor


class Fitter:
    """What a whole model computes on images, and layers of a pruned one fitted to that.

    Attributes:
        whole: the model, float32, on the images' device.
        layers: names of the convolutions that can be fitted.
        norms: names of the batch norms that can be.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        seed: int = 0,
        weights: Mapping[str, Tensor] | None = None,
        samples: int | None = None,
        counts: Counts = (None, None),
    ) -> None:
        """Run the images once; the arguments are those of `refit`.

        `samples` positions of each layer are looked at, `MAX_SAMPLES` by default.
        """
        self._counts = counts
        self.whole = copy_model(model).to(images.device).float().eval()
        self._following = following_norms(model, images[:1])
        self._targets, self._moments = _observe(
            self.whole, images, seed, weights or {}, samples or MAX_SAMPLES, counts
        )
        self.layers, self.norms = frozenset(self._targets), frozenset(self._moments)

    def fit_convolution(
        self, model: nn.Module, name: str, x: Tensor, kept: Tensor, rows: Tensor
    ) -> None:
        """Fit a convolution of the pruned model to its inputs, in place.

        Args:
            model: the pruned model, masked.
            name: the convolution.
            x: its inputs for the images.
            kept: numbers of the input channels that stay.
            rows: numbers of the output channels to fit.
        """
        layer: Any = model.get_submodule(name)
        can_shift = layer.bias is not None or name in self._following
        shift = _regress(layer, x[: self._counts[0]], self._targets[name], kept, rows, can_shift)
        if shift is None or not can_shift:
            return
        if layer.bias is not None:
            layer.bias[rows] = self.whole.get_parameter(f"{name}.bias")[rows] + shift
        else:
            norm = self._following[name]
            old = self.whole.get_buffer(f"{norm}.running_mean")
            model.get_buffer(f"{norm}.running_mean")[rows] = old[rows] - shift

    def fit_norm(self, layer: _BatchNorm, name: str, x: Tensor) -> None:
        """Let a batch norm of the pruned model follow the change of its inputs, in place."""
        mean, variance = _moments(x[: self._counts[1]])
        old_mean, old_variance = self._moments[name]
        old = self.whole.get_submodule(name)
        assert isinstance(old.running_mean, Tensor)
        assert isinstance(old.running_var, Tensor)
        ratio = (variance + layer.eps) / (old_variance + layer.eps)
        # The normalised values keep their mean and their variance.
        layer.running_mean = mean - (old_mean - old.running_mean) * ratio.sqrt()
        layer.running_var = old.running_var * ratio


@EXACT
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
    weights: Mapping[str, Tensor] | None = None,
    counts: Counts = (None, None),
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
        weights: of each position (N, H, W) of a convolution's output, as `position_weights` gives
            them; without them all positions are equally likely.
        counts: how many of the images, the first ones, the one and the other is done on; None for
            all.

    Returns:
        A copy of the model, of the same size; the arguments are not touched.
    """
    images = images.float()
    fitter = Fitter(model, images, seed=seed, weights=weights, counts=counts)
    fitted = mask_plan(start or model, groups, plan).to(images.device).float().eval()
    gone = {(name, axis): channels for name, axis, channels in removed_channels(groups, plan)}

    def fit_convolution(name: str, layer: nn.Conv2d, x: Tensor) -> None:
        kept = kept_channels(layer.in_channels, gone.get((name, "in"), _NONE)).to(x.device)
        rows = kept_channels(layer.out_channels, gone.get((name, "out"), _NONE)).to(x.device)
        fitter.fit_convolution(fitted, name, x, kept, rows)

    def fit_norm(name: str, layer: _BatchNorm, x: Tensor) -> None:
        fitter.fit_norm(layer, name, x)

    for name, layer in fitted.named_modules():
        if reconstruct and name in fitter.layers:
            _before(layer, partial(fit_convolution, name))
        elif recalibrate and name in fitter.norms:
            _before(layer, partial(fit_norm, name))
    fitted(images)
    refitted = copy_model(model)
    refitted.load_state_dict(fitted.state_dict())
    return refitted


def _before(layer: nn.Module, act: Callable[[Any, Tensor], None]) -> RemovableHandle:
    """Call `act` with a layer and its input each time before it runs."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        act(module, args[0])

    return layer.register_forward_pre_hook(hook)


def _observe(
    whole: nn.Module,
    images: Tensor,
    seed: int,
    weights: Mapping[str, Tensor],
    samples: int,
    counts: Counts,
) -> tuple[dict[str, _Target], dict[str, tuple[Tensor, Tensor]]]:
    """Sampled outputs of each dense convolution, and the moments of each batch norm's input."""
    targets: dict[str, _Target] = {}
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    runs: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(seed)
    fixed = fixed_layers(whole)  # such a weight is not the layer's own to fit

    def sample(name: str, output: Tensor) -> None:
        runs[name] += 1
        output = output[: counts[0]]
        positions = draw(output.shape, weights.get(name), samples, generator, output.device)
        outputs = output[positions[0], :, positions[1], positions[2]]
        targets[name] = _Target(positions=positions, outputs_SO=outputs)

    def measure(name: str, _layer: nn.Module, x: Tensor) -> None:
        runs[name] += 1
        moments[name] = _moments(x[: counts[1]])

    handles = []
    for name, layer in whole.named_modules():
        if isinstance(layer, nn.Conv2d) and is_refittable(layer) and name not in fixed:
            handles.append(
                layer.register_forward_hook(lambda _m, _a, out, name=name: sample(name, out))
            )
        elif isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            handles.append(_before(layer, partial(measure, name)))
    whole(images)
    for handle in handles:
        handle.remove()
    # A layer that runs at several places has no one output to be fitted to.
    once = {name for name, count in runs.items() if count == 1}
    return (
        {name: target for name, target in targets.items() if name in once},
        {name: moment for name, moment in moments.items() if name in once},
    )


def draw(
    shape: Sequence[int],
    weights: Tensor | None,
    most: int,
    generator: torch.Generator,
    device: torch.device,
) -> Positions:
    """Positions of a map: some evenly, the others in proportion to their weights.

    Args:
        shape: of the map, (N, C, H, W).
        weights: (N, H, W), not negative; None draws all evenly.
        most: how many at most.
        generator: decides them.
        device: of the result.
    """
    images, _, height, width = shape
    total = images * height * width
    count = min(most, total)
    weighted = weights is not None and float(weights.sum()) > 0
    evenly = round(EVEN * count) if weighted else count
    flat = torch.randint(total, (evenly,), generator=generator)
    if weights is not None and weighted:
        rising = weights.flatten().double().cumsum(0)
        spots = torch.rand(count - evenly, generator=generator, dtype=torch.float64) * rising[-1]
        by_weight = torch.searchsorted(rising, spots, right=True).clamp(max=total - 1)
        flat = torch.cat([flat, by_weight])
    flat = flat.to(device)
    rest = flat % (height * width)
    return flat // (height * width), rest // width, rest % width


def position_weights(
    model: nn.Module, batches: Sequence[Any], loss: Loss, device: torch.device | None = None
) -> dict[str, Tensor]:
    """What each position of a convolution's output means to the loss: its squared gradient.

    That is the diagonal of the Fisher information, summed over the channels (Theis et al. 2018,
    arXiv:1801.05787): to second order, an error at a position costs as much as this is large.

    Args:
        model: not changed.
        batches: what the loss takes, one at a time.
        loss: a scalar of the model and a batch.
        device: to compute on; None means where the model is.

    Returns:
        For each convolution that runs once, (N, H, W) on the CPU, N over all batches.
    """
    twin = copy_model(model).to(device).float().eval().requires_grad_(True)
    outputs: dict[str, list[Tensor]] = {}
    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv2d):
            outputs[name] = []
            layer.register_forward_hook(lambda _m, _a, out, name=name: outputs[name].append(out))
    parts: dict[str, list[Tensor]] = {name: [] for name in outputs}
    for batch in batches:
        for seen in outputs.values():
            seen.clear()
        with torch.enable_grad():
            value = loss(twin, batch)
        once = {name: seen[0] for name, seen in outputs.items() if len(seen) == 1}
        gradients = torch.autograd.grad(
            value, list(once.values()), allow_unused=True, materialize_grads=True
        )
        for name, gradient in zip(once, gradients, strict=True):
            parts[name].append(gradient.square().sum(dim=1).detach().cpu())
    return {
        name: torch.cat(maps) for name, maps in parts.items() if len(maps) == len(batches) and maps
    }


def is_refittable(layer: nn.Conv2d) -> bool:
    """Whether it is dense or depthwise, its padding of zeros, and told in numbers."""
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


def _regress(
    layer: nn.Conv2d, x: Tensor, target: _Target, kept: Tensor, rows: Tensor, can_shift: bool
) -> Tensor | None:
    """Refit a convolution's kept weights to the target, in place.

    Returns:
        The constant to add to its output without bias, (rows,); None where it needed no change.
    """
    patches_SIK = patches(layer, x, target.positions)
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


def patches(layer: nn.Conv2d, x: Tensor, positions: Positions) -> Tensor:
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
