"""A penalty on weights in the training loop: when it acts, and what the run tells of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from loguru import logger

from yolox.core.record import Curves
from yolox.core.settings import Regularizer

_SAMPLES = 1000  # steps that a forecast looks at


def take_step(
    fabric: Fabric,
    optimizer: torch.optim.Optimizer,
    regularizer: Regularizer | None,
    *,
    lr: float,
    progress: float,
) -> None:
    """One optimizer step, with the penalty once, whatever the precision and accumulation.

    The penalty acts on gradients without the scale that fp16 puts on the loss, after the sum over
    micro-batches and processes. Where the scaler finds the gradients not finite and leaves the
    step out, the penalty leaves the weights alone too.

    Args:
        optimizer: as `Fabric.setup` returned it.
        regularizer: the penalty, if any.
        lr: learning rate of this step.
        progress: fraction of the run that is done, in [0, 1].
    """
    if regularizer is None:
        optimizer.step()
        return
    scaler = getattr(fabric._precision, "scaler", None)
    scale = 1.0
    if scaler is not None:
        # Not by Fabric's own method: it refuses fused optimizers, which the scaler can do.
        scaler.unscale_(optimizer.optimizer)  # type: ignore[attr-defined]
        scale = scaler.get_scale()
    regularizer.add_gradients(progress)
    optimizer.step()
    if scaler is None or scaler.get_scale() >= scale:
        regularizer.shrink(lr, progress)


def watch(
    regularizer: Regularizer,
    curves: Curves,
    schedule: Callable[[int], float],
    *,
    epoch: int,
    max_epoch: int,
    steps: int,
    accumulate: int,
) -> None:
    """Write the histograms of an epoch, and log once whether the penalty's strength will do.

    Args:
        schedule: learning rate by iteration, counted from 1 over the whole run.
        epoch: epochs done.
        steps: iterations an epoch, `accumulate` of which make an optimizer step.
    """
    for name, values in regularizer.histograms().items():
        curves.histogram(epoch * steps, name, values)
    if not epoch - 1 < regularizer.advice_at * max_epoch <= epoch < max_epoch:
        return
    first, last = epoch * steps + 1, max_epoch * steps
    sample = range(first, last + 1, max(1, (last - first) // _SAMPLES))
    remaining = [(schedule(iteration), iteration / last) for iteration in sample]
    updates = (max_epoch - epoch) * -(-steps // accumulate)
    if advice := regularizer.advice(remaining, updates):
        logger.warning(advice)
