"""Learning rate as a pure function of the iteration."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WarmupCosineSchedule:
    """Quadratic warm-up, cosine decay (Loshchilov & Hutter 2017), then constant at the minimum.

    Attributes:
        lr: the peak learning rate.
        iters_per_epoch, total_epochs: length of the run.
        warmup_epochs, warmup_lr_start: the warm-up's length and first value.
        no_aug_epochs: the constant tail's length.
        min_lr_ratio: the tail's rate over the peak.
        warmup_power: 2 for the quadratic warm-up, 1 for a straight one.
    """

    lr: float
    iters_per_epoch: int
    total_epochs: int
    warmup_epochs: float = 0
    warmup_lr_start: float = 0.0
    no_aug_epochs: int = 0
    min_lr_ratio: float = 0.05
    warmup_power: int = 2

    def __call__(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 1 over the whole run."""
        warmup = self.warmup_epochs * self.iters_per_epoch
        tail = self.no_aug_epochs * self.iters_per_epoch
        total = self.total_epochs * self.iters_per_epoch
        floor = self.lr * self.min_lr_ratio
        if warmup > 0 and iteration <= warmup:
            risen = (iteration / warmup) ** self.warmup_power
            return self.warmup_lr_start + (self.lr - self.warmup_lr_start) * risen
        if iteration >= total - tail:
            return floor
        progress = (iteration - warmup) / (total - warmup - tail)
        return floor + 0.5 * (self.lr - floor) * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """The rate times `gamma` from the end of each milestone on.

    Attributes:
        lr: the first learning rate.
        milestones: iterations, rising.
        gamma: factor of each step.
    """

    lr: float
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __call__(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 1 over the whole run."""
        return self.lr * self.gamma ** bisect.bisect_right(self.milestones, iteration)


SCHEDULES = ("yoloxwarmcos", "warmcos", "cos", "multistep")


class LRScheduler:
    """A schedule by its official name.

    Args:
        name: ``yoloxwarmcos`` as `WarmupCosineSchedule`; ``warmcos``, a straight warm-up and a
            cosine down to 0; ``cos``, the cosine alone; or ``multistep``.
        lr: the peak learning rate.
        iters_per_epoch, total_epochs: length of the run.
        warmup_epochs, warmup_lr_start, no_aug_epochs, min_lr_ratio: of ``yoloxwarmcos``, the first
            two of ``warmcos`` too.
        milestones, gamma: of ``multistep``: epochs after which the rate is multiplied by gamma.

    Raises:
        ValueError: for another name.
    """

    def __init__(
        self,
        name: str,
        lr: float,
        iters_per_epoch: int,
        total_epochs: int,
        *,
        warmup_epochs: float = 0,
        warmup_lr_start: float = 0.0,
        no_aug_epochs: int = 0,
        min_lr_ratio: float = 0.2,
        milestones: Sequence[float] = (),
        gamma: float = 0.1,
    ) -> None:
        self.lr = lr
        self.iters_per_epoch = iters_per_epoch
        self.total_epochs = total_epochs
        self.lr_func: Callable[[int], float]
        if name == "multistep":
            steps = tuple(sorted(int(epoch * iters_per_epoch) for epoch in milestones))
            self.lr_func = StepSchedule(lr=lr, milestones=steps, gamma=gamma)
            return
        if name not in SCHEDULES:
            raise ValueError(f"scheduler must be one of {', '.join(SCHEDULES)}, got {name!r}")
        full = name == "yoloxwarmcos"
        self.lr_func = WarmupCosineSchedule(
            lr=lr,
            iters_per_epoch=iters_per_epoch,
            total_epochs=total_epochs,
            warmup_epochs=0 if name == "cos" else warmup_epochs,
            warmup_lr_start=warmup_lr_start,
            no_aug_epochs=no_aug_epochs if full else 0,
            min_lr_ratio=min_lr_ratio if full else 0.0,
            warmup_power=2 if full else 1,
        )

    def update_lr(self, iters: int) -> float:
        """The learning rate of an iteration, counted from 1 over the whole run."""
        return self.lr_func(iters)

    __call__ = update_lr
