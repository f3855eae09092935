"""Learning rate as a pure function of the iteration: warm-up, cosine, constant tail."""

from __future__ import annotations

import math
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
    """

    lr: float
    iters_per_epoch: int
    total_epochs: int
    warmup_epochs: float = 0
    warmup_lr_start: float = 0.0
    no_aug_epochs: int = 0
    min_lr_ratio: float = 0.05

    def __call__(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 1 over the whole run."""
        warmup = self.warmup_epochs * self.iters_per_epoch
        tail = self.no_aug_epochs * self.iters_per_epoch
        total = self.total_epochs * self.iters_per_epoch
        floor = self.lr * self.min_lr_ratio
        if iteration <= warmup:
            return (
                self.warmup_lr_start + (self.lr - self.warmup_lr_start) * (iteration / warmup) ** 2
            )
        if iteration >= total - tail:
            return floor
        progress = (iteration - warmup) / (total - warmup - tail)
        return floor + 0.5 * (self.lr - floor) * (1 + math.cos(math.pi * progress))
