"""What a training run is told and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class TrainLoader(Protocol):
    """Epochs of batches (images, targets, sizes, ids)."""

    def set_epoch(self, epoch: int, mosaic: bool, first: int = 0) -> None:
        """Choose the epoch (from 0) that the next iteration yields, and whether with mosaic.

        So many of its first batches are left out.
        """
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Regularizer(Protocol):
    """A penalty on weights beside the loss. `progress` is the fraction of the run that is done."""

    @property
    def name(self) -> str:
        """What a person set, as ``sparsity 0.01``."""
        ...

    def add_gradients(self, progress: float) -> None:
        """Add the penalty's gradients, once an optimizer step, to unscaled and reduced ones."""
        ...

    def shrink(self, lr: float, progress: float) -> None:
        """Move the weights after an optimizer step with that learning rate, where one was made."""
        ...

    def settle(self, average: nn.Module) -> None:
        """Carry over to the average what it only nears, before it is evaluated and saved."""
        ...

    def scale(self) -> float:
        """The usual size of what is penalised, in [0, ∞)."""
        ...

    def text(self) -> str:
        """A few words for a line of the log."""
        ...

    def scalars(self) -> dict[str, float]:
        """Points of curves, by name."""
        ...

    def histograms(self) -> dict[str, Tensor]:
        """Values whose distribution tells, by name, on the CPU."""
        ...

    def forecast(self, rates: Sequence[tuple[float, float]], steps: int) -> str:
        """Why the strength will not do, before a step is made, or an empty text.

        Args:
            rates: (learning rate, progress) at steps spread evenly over the run.
            steps: how many optimizer steps it has.
        """
        ...


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
        retake_statistics: evaluate and save batch norms with the statistics that the weights have
            on an epoch's last images, not the running ones; with a regularizer that is done after
            every epoch anyway.
        evaluate_start: evaluate and save the model before the first step too, which is the best
            one until an epoch is better.
        save_every: seconds after which an epoch's position is saved, for a run that is stopped in
            it to continue from; 0 saves between epochs, and where the run is told to stop.
        goes_on: how a person goes on with a stopped run, as in "… continues in epoch 3"; empty:
            with its latest checkpoint as `checkpoint`, and `resume=True`.
    """

    output_dir: Path
    max_epoch: int
    no_aug_epochs: int
    eval_interval: int
    print_interval: int
    accumulate: int = 1
    save_history: bool = False
    retake_statistics: bool = False
    evaluate_start: bool = False
    save_every: float = 0.0
    goes_on: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run gives back.

    Attributes:
        ap50_95, ap50: of the best evaluation, in [0, 1].
        best_checkpoint: its file.
        latest_checkpoint: of the last epoch, with the state that a resumed run needs.
    """

    ap50_95: float
    ap50: float
    best_checkpoint: Path
    latest_checkpoint: Path
