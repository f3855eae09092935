"""Measured time of a forward pass, several models interleaved so that noise hits all alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from yolox.utils.device import CPU
from yolox.utils.model_utils import fuse_model
from yolox.utils.timing import interleave, tell_unsteady


@torch.inference_mode()
def measure_latency(
    models: Sequence[nn.Module],
    example_input: Tensor,
    device: torch.device = CPU,
    *,
    runs: int = 30,
    warmup: int = 5,
    at_most: float = math.inf,
) -> list[float]:
    """Median milliseconds of one evaluation forward pass, batch norms folded, float32.

    Args:
        models: timed in turn, see :func:`yolox.utils.timing.interleave`; not touched.
        example_input: float (B, 3, H, W).
        device: where copies of both run.
        runs: rounds that count, as there.
        warmup: rounds before them, as there.
        at_most: seconds, as there.
    """
    x = example_input.to(device, memory_format=torch.channels_last)
    works: list[Callable[[], object]] = [
        partial(fuse_model(model).to(device, memory_format=torch.channels_last), x)  # type: ignore[call-overload]
        for model in models
    ]
    times = interleave(works, runs=runs, warmup=warmup, at_most=at_most, device=device)
    tell_unsteady((f"model {number}", record) for number, record in enumerate(times, start=1))
    return [statistics.median(record) for record in times]
