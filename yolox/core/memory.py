"""What a training step takes of an accelerator's memory, and how many images would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from yolox.utils.device import peak_memory, reset_peak, usable_memory

MARGIN_RATIO = 0.95  # of the memory: its allocator cannot fill the last gaps


def out_of_memory(
    said: str,
    fabric: Fabric,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor] | None,
) -> str:
    """A step that did not fit, and what would, measured on its batch where the device tells.

    To be called where nothing holds what the step had made.

    Args:
        said: by PyTorch.
        fabric: whose device is full.
        objective: computes the losses from (images, targets).
        optimizer: of its parameters; their gradients are dropped.
        batch: images and targets of the step; None: it was none that ran out.
    """
    device = fabric.device
    if batch is None:
        return f"out of memory on {device} ({said}): lower the batch size or input_size"

    def step(count: int) -> None:
        optimizer.zero_grad()
        with fabric.autocast():
            losses = objective(*(part[:count] for part in batch))
        losses["total_loss"].backward()

    # Of several processes some have not run out of memory, and wait for this one.
    alone = fabric.world_size == 1
    fits = batch_that_fits(step, device) if alone else None
    height, width = batch[0].shape[-2:]
    advice = "lower the batch size or input_size"
    if fits == 0:
        advice = "not even one fits: lower input_size, or take a smaller model"
    elif fits:
        advice = (
            f"a batch size of {fits} fits, by what one and two images take, and accumulate "
            "keeps the effective batch"
        )
    return (
        f"out of memory on {device} with {len(batch[0])} images of {height}×{width} ({said}): "
        f"{advice}"
    )


def batch_that_fits(step: Callable[[int], object], device: torch.device) -> int | None:
    """How many images a step could have, by what it takes with one and with two.

    Args:
        step: forward and backward pass of so many images; what it leaves is kept between calls.
        device: that it computes on.

    Returns:
        0 where not even one fits, None where the device does not tell what it takes.
    """
    gc.collect()
    limit = usable_memory(device)
    if limit is None:
        return None
    peaks: list[int] = []
    for images in (1, 2):
        reset_peak(device)
        try:
            step(images)
        except torch.OutOfMemoryError:
            return images - 1
        except (RuntimeError, ValueError):  # such as a batch norm that one value is too few for
            return None
        peaks.append(peak_memory(device) or 0)
    first, second = peaks
    if second <= first:
        return None
    return max(1, 1 + int((MARGIN_RATIO * limit - first) // (second - first)))
