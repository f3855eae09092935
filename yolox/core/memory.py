"""What a training step takes of an accelerator's memory, and how many images would fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from yolox.utils.device import peak_memory, reset_peak, usable_memory

MARGIN_RATIO = 0.95  # of the memory: its allocator cannot fill the last gaps


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
