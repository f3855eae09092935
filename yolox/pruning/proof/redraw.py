"""Other weights and signals than a model has, so that no zero and no symmetry hides anything."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Weights come from a list of random numbers that is read again and again: a prime length keeps the
# filters apart, and a hundred million weights cost a copy in place of a draw each.
POOL_SIZE = 1_048_583
# Noise by half the width of the interval and its middle: faint for what saturates, nearly equal for
# what compares, strong for what clips.
NOISE_LEVELS = ((0.03, 0.0), (0.1, 1.0), (8.0, 0.0))
LOUDNESS_RATIO = 4  # of channels that go to those that stay, so that a leak shows


@torch.no_grad()
def redraw(model: nn.Module, seed: int, skip: Container[str] = ()) -> None:
    """Give a float64 model other parameters and batch-norm statistics, in place.

    Weights are uniform with a variance of one over their fan-in, so that a signal neither dies out
    nor explodes. Scales have magnitudes of 0.5 to 1.5 and any sign in batch norms; elsewhere they
    keep their sign, since a root or a logarithm may be taken of them. Shared parameters stay
    shared.
    """
    generator = torch.Generator().manual_seed(seed)
    pool = torch.rand(POOL_SIZE, generator=generator, dtype=torch.float64) * 2 - 1
    pool += torch.finfo(torch.float64).tiny  # not one zero
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(name, recurse=False):
            if key in skip or not parameter.is_floating_point():
                continue
            fan_in = parameter.numel() / (len(parameter) if parameter.dim() else 1)
            if key.endswith("bias"):
                _fill(parameter, pool, generator)
            elif fan_in > 1:
                _fill(parameter, pool, generator, (3 / fan_in) ** 0.5)
            else:
                old = parameter.clone()
                _fill(parameter, pool, generator)
                _away_from_zero(parameter)
                if not isinstance(module, _BatchNorm):
                    parameter.copy_(torch.where(old < 0, -parameter.abs(), parameter.abs()))
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            _fill(module.running_mean, pool, generator)
            _fill(module.running_var, pool, generator)
            _away_from_zero(module.running_var.abs_())


def _fill(tensor: Tensor, pool: Tensor, generator: torch.Generator, scale: float = 1.0) -> None:
    start = int(torch.randint(len(pool), (1,), generator=generator))
    values = tensor.detach()
    flat = values.view(-1) if values.is_contiguous() else torch.empty_like(values).reshape(-1)
    done = 0
    while done < len(flat):
        count = min(len(flat) - done, len(pool) - start)
        torch.mul(pool[start : start + count], scale, out=flat[done : done + count])
        done, start = done + count, 0
    if not values.is_contiguous():
        values.copy_(flat.view(values.shape))


def _away_from_zero(tensor: Tensor) -> None:
    tensor.add_(tensor.sign(), alpha=0.5)


def noise(
    like: Tensor, dim: int, removed: Tensor, first: int, generator: torch.Generator
) -> Tensor:
    """Bounded noise in place of a layer's output, its removed channels louder than the others.

    The images of a batch have the `NOISE_LEVELS` in turn, from the first one given.
    """
    signal = torch.rand(like.shape, generator=generator, dtype=like.dtype)
    for number in range(len(NOISE_LEVELS)):
        scale, offset = NOISE_LEVELS[(first + number) % len(NOISE_LEVELS)]
        signal[number :: len(NOISE_LEVELS)].mul_(2 * scale).add_(offset - scale)
    if len(removed):
        sign = torch.randint(0, 2, (len(removed),), generator=generator) * 2 - 1
        shape = [1] * like.dim()
        shape[dim] = len(removed)
        louder = signal.index_select(dim, removed) * (LOUDNESS_RATIO * sign.to(like.dtype)).view(
            shape
        )
        signal.index_copy_(dim, removed, louder)
    return signal


def random_images(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Images of 0 to 255, noisy on the left and bright on the right."""
    images = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    noisy, bright = images.tensor_split(2, dim=-1)
    noisy.mul_(255)
    bright.mul_(20).add_(230)
    return images
