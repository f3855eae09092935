"""A penalty on weights in the training loop: when it acts, and what the run tells of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from loguru import logger

from yolox.core.loggers import RunLoggers
from yolox.core.settings import Regularizer

LOSS_RISE_RATIO = 1.2  # of the loss, over its lowest epoch, that a penalty is to be blamed for
SCALE_DROP_RATIO = 0.9  # of the first scales: a penalty that leaves more of them is not to blame
MIN_AP = 0.05  # below it, half of it is noise
_FORECAST_STEPS = 1000  # steps that a forecast looks at


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
        fabric: that the optimizer was set up with.
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


class PenaltyWatch:
    """What a run tells of its penalty: distributions, and whether its strength will do.

    Args:
        schedule: learning rate by iteration, counted from 1 over the whole run.
        steps: iterations an epoch, `accumulate` of which make an optimizer step.
    """

    def __init__(
        self,
        regularizer: Regularizer,
        schedule: Callable[[int], float],
        *,
        max_epoch: int,
        steps: int,
        accumulate: int,
    ) -> None:
        self._regularizer = regularizer
        self._schedule = schedule
        self._max_epoch = max_epoch
        self._steps = steps
        self._accumulate = accumulate
        self._scale = regularizer.scale()
        self._lowest = math.inf
        self._high = 0
        self._told = False

    def start(self) -> None:
        """Warn, before a run's first step, of a strength that cannot work."""
        last = self._max_epoch * self._steps
        sample = range(1, last + 1, max(1, last // _FORECAST_STEPS))
        rates = [(self._schedule(iteration), iteration / last) for iteration in sample]
        updates = self._max_epoch * -(-self._steps // self._accumulate)
        if advice := self._regularizer.forecast(rates, updates):
            logger.warning(advice)

    def epoch(
        self,
        done: int,
        loggers: RunLoggers,
        *,
        loss: float | None,
        ap: float | None,
        best: float,
    ) -> None:
        """Write an epoch's histograms; warn, once, of a strength that ruins the model.

        Loss and AP are noisy: the loss has to stay high for two epochs, and the penalty to have
        moved what it is on.

        Args:
            done: epochs done.
            loggers: that the histograms go to.
            loss: its mean, of terms and images as in the other epochs; None where it has others.
            ap: AP50-95 where it was evaluated.
            best: the highest AP50-95 before; negative where there was none.
        """
        for name, values in self._regularizer.histograms().items():
            loggers.histogram(done * self._steps, name, values)
        signs = []
        if loss is not None:
            self._high = self._high + 1 if loss > LOSS_RISE_RATIO * self._lowest else 0
            if self._high >= 2:
                signs.append(f"the loss rose from {self._lowest:.2f} to {loss:.2f}")
            self._lowest = min(self._lowest, loss)
        if ap is not None and best >= MIN_AP and ap < best / 2:
            signs.append(f"AP50-95 fell from {best:.3f} to {ap:.3f}")
        moved = self._regularizer.scale() < SCALE_DROP_RATIO * self._scale
        if signs and moved and not self._told:
            self._told = True
            logger.warning(
                f"{self._regularizer.name} seems too strong for this model: {' and '.join(signs)} "
                f"by epoch {done} ({self._regularizer.text()}); to keep AP, start again with a "
                "third of it"
            )
