"""What a training run is told and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class TrainLoader(Protocol):
    """Epochs of batches (images, targets, sizes, ids)."""

    def set_epoch(self, epoch: int, mosaic: bool) -> None:
        """Choose the epoch (from 0) that the next iteration yields, and whether with mosaic."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a run goes.

    Attributes:
        output_dir: where checkpoints, log and TensorBoard files go.
        max_epoch, no_aug_epochs: length; the last ones have no mosaic and add the L1 loss.
        eval_interval: epochs between two evaluations; the last epochs are all evaluated.
        print_interval: iterations between two log lines.
        accumulate: batches whose gradients make one optimizer step.
        save_history: keep a checkpoint of every evaluated epoch.
    """

    output_dir: Path
    max_epoch: int
    no_aug_epochs: int
    eval_interval: int
    print_interval: int
    accumulate: int = 1
    save_history: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The best evaluation of the run, and its file."""

    ap50_95: float
    ap50: float
    best_checkpoint: Path
