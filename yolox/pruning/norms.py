"""Batch norms of a cut model, made ready to be trained."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.watch import fixed_layers
from yolox.utils.model_utils import copy_model

MAX_SPREAD = 4  # between variances of one layer's inputs on differently augmented images
BATCH = 8  # images a forward pass; a map of each of their channels is held as float64

Moments = tuple[Tensor, Tensor]  # mean and variance of each channel, float64 (C,)


@torch.no_grad()
def settle_norms(model: nn.Module, whole: nn.Module, masked: nn.Module, images: Tensor) -> None:
    """Let running statistics follow a cut; the model computes the same as before.

    In evaluation a batch norm uses its running statistics, and a refit counts on them. In training
    it uses those of the batch, and a model whose running statistics are of its inputs before the
    cut is another one there: what the refit brought back is lost with the first step. Here they
    become those of the inputs after the cut, and scale and shift take up the difference.

    A batch norm whose inputs are what they were is left alone, and so is one that runs at several
    places, has no scale, or whose scale is not its own.

    Args:
        model: refitted, before the cut; changed in place.
        whole: what it was before.
        masked: `model` without what is cut from it, of the same size.
        images: float (N, 3, H, W), real ones, on the device to compute on.
    """
    before, after = norm_moments(whole, images), norm_moments(masked, images)
    fixed = fixed_layers(whole)
    for name, (mean, variance) in after.items():
        norm: Any = model.get_submodule(name)
        if name not in before or name in fixed or norm.weight is None:
            continue
        old_mean, old_variance = before[name]
        if torch.equal(mean, old_mean) and torch.equal(variance, old_variance):
            continue
        mean, variance = _followed(
            whole.get_submodule(name), (old_mean, old_variance), (mean, variance)
        )
        running_mean, running_variance, scale, shift = (
            tensor.double().cpu()
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        deviation = (running_variance + norm.eps).sqrt()
        norm.bias.copy_(shift + scale * (mean - running_mean) / deviation)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt() / deviation)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _followed(norm: Any, before: Moments, after: Moments) -> Moments:
    """Running statistics after a change of the inputs, from how it changed them on some images.

    They stay those of the images of training, which augments. Where they have been nothing like
    those of the inputs, as after a few steps of training, they become the inputs' own.
    """
    mean, variance = (tensor.double().cpu() for tensor in (norm.running_mean, norm.running_var))
    ratio = (after[1] + norm.eps) / (before[1] + norm.eps)
    offset = before[0] - mean
    spread = (variance + norm.eps) / (before[1] + norm.eps)
    alike = (spread < MAX_SPREAD) & (spread > 1 / MAX_SPREAD)
    alike &= offset.square() < before[1] + norm.eps
    moved = ((variance + norm.eps) * ratio - norm.eps).clamp_min(0)
    return (
        torch.where(alike, after[0] - offset * ratio.sqrt(), after[0]),
        torch.where(alike, moved, after[1]),
    )


@torch.no_grad()
def norm_moments(model: nn.Module, images: Tensor) -> dict[str, Moments]:
    """Mean and variance of the inputs of each batch norm that runs once, over the images.

    Args:
        model: not changed.
        images: float (N, 3, H, W).
    """
    twin = copy_model(model).to(images.device).float().eval()
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    runs: Counter[str] = Counter()

    def add(name: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
        runs[name] += 1
        x = args[0].double()
        dims = [0, *range(2, x.dim())]
        total, squares, count = sums.get(name, (0.0, 0.0, 0))
        count += x.numel() // x.shape[1]
        sums[name] = total + x.sum(dims), squares + x.square().sum(dims), count

    for name, module in twin.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.register_forward_pre_hook(partial(add, name))
    parts = torch.split(images, BATCH)
    for part in parts:
        twin(part.float())
    moments: dict[str, Moments] = {}
    for name, (total, squares, count) in sums.items():
        if runs[name] == len(parts):
            mean = total / count
            moments[name] = mean.cpu(), (squares / count - mean.square()).clamp_min(0).cpu()
    return moments
