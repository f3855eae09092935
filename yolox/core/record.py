"""What a run tells of itself: mean losses and speed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from yolox.core.step import loss_names
from yolox.utils.dist import gather_values


class Meter:
    """Means of the losses and the speed since it was last read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reset()

    def _reset(self) -> None:
        self._names: list[str] = []
        self._losses: list[Tensor] = []  # (names,) a batch, which no step waits for
        self._images = 0
        self._start = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], images: int) -> None:
        """Count a batch: its losses, and how many images all processes together saw."""
        self._names = loss_names(losses)
        self._losses.append(torch.stack([losses[name].detach() for name in self._names]))
        self._images += images

    def read(self) -> tuple[dict[str, float], float, float]:
        """Losses, means over batches and processes; images a second; seconds a batch.

        Collective: called by every process of a group.
        """
        batches = len(self._losses)
        sums = torch.stack(self._losses).cpu().double().sum(0)
        seconds = time.perf_counter() - self._start
        own = sums.float().to(self._device) / batches
        means = dict(zip(self._names, gather_values(own).mean(0).tolist(), strict=True))
        result = means, self._images / seconds, seconds / batches
        self._reset()
        return result


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
