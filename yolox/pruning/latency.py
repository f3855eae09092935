"""Measured time of a forward pass, several models interleaved so that noise hits all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yolox.utils.model_utils import fuse_model

MIN_RUNS = 3


@torch.inference_mode()
def measure_latency(
    models: Sequence[nn.Module],
    example_input: Tensor,
    *,
    runs: int = 30,
    warmup: int = 5,
    at_most: float = math.inf,
) -> list[float]:
    """Median milliseconds of one evaluation forward pass, batch norms folded, float32.

    Args:
        models: timed in turn, run by run, so that a slow moment of the machine hurts all alike.
        example_input: float (B, 3, H, W) on the models' device.
        runs: timed passes a model.
        warmup: passes before them.
        at_most: seconds after which no more runs are begun, once each model has been timed thrice.
    """
    x = example_input.contiguous(memory_format=torch.channels_last)
    ready = [fuse_model(model).to(memory_format=torch.channels_last) for model in models]  # type: ignore[call-overload]
    times: list[list[float]] = [[] for _ in ready]
    begun = time.perf_counter()
    for run in range(warmup + runs):
        if run >= warmup + MIN_RUNS and time.perf_counter() - begun > at_most:
            break
        for model, record in zip(ready, times, strict=True):
            _synchronize(x)
            start = time.perf_counter()
            model(x)
            _synchronize(x)
            if run >= warmup:
                record.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(record) for record in times]


def _synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
