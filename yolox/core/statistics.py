"""Batch-norm statistics of a model whose weights move faster than its running averages follow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

MAX_IMAGES = 128  # at most; what a run keeps of them costs memory on the device


class RecentImages:
    """The last batches of an epoch, up to `MAX_IMAGES` images and at least one batch."""

    def __init__(self) -> None:
        self._batches: deque[Tensor] = deque()

    def clear(self) -> None:
        """Forget them: an epoch's statistics are its own, whether the run was resumed or not."""
        self._batches.clear()

    def add(self, images: Tensor) -> None:
        """Keep a batch (B, 3, H, W)."""
        self._batches.append(images)
        while len(self._batches) > max(1, math.ceil(MAX_IMAGES / len(images))):
            self._batches.popleft()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)


@torch.no_grad()
def retake_statistics(average: nn.Module, model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of an average to those that its weights have on some images.

    A penalty makes the signals behind each batch norm fade. The running mean and variance follow
    late, an average of them later still, and a deep net multiplies the error: the model is right
    but for its statistics.

    Args:
        average: in evaluation mode; changed in place. May be `model` itself.
        model: being trained; what is in evaluation mode there is frozen, and stays as it is.
        batches: images (B, 3, H, W), at least one.
    """
    norms = [
        norm
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
        if isinstance(norm := average.get_submodule(name), _BatchNorm)
    ]
    modes = [(module, module.training) for module in average.modules()]
    momenta = [norm.momentum for norm in norms]
    try:
        average.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
            norm.train()
        for images in batches:
            average(images)
    finally:
        for module, training in modes:
            module.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
