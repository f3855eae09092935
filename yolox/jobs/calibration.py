"""Training images that pruning scores on, refits on, and measures its loss on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from loguru import logger
from torch import Tensor, nn

from yolox.data import DataError
from yolox.data.dataloading import stack_labels
from yolox.exp.follow import follow_checkpoint
from yolox.exp.yolox_base import Exp
from yolox.models import LoadedModel
from yolox.pruning import CRITERIA, PruneConfig, PruningError
from yolox.pruning.importance import Scorer
from yolox.pruning.judge import LabelledImages
from yolox.pruning.scorers import make_scorer
from yolox.utils.device import resolve_device
from yolox.utils.model_utils import copy_model
from yolox.utils.progress import track

Batch = tuple[Tensor, Tensor]

_Images = TypeVar("_Images", bound="Calibration")

CALIBRATION_BATCH_SIZE = 1  # a Taylor score is a mean of squares: single images tell most
JOINED_BATCH_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Training images with their targets, one a batch; each pass over them shows its progress.

    Attributes:
        batches: as the loss takes them.
        title: of the progress bar.
        device: where losses and scores are computed.
    """

    batches: Sequence[Any] = ()
    title: str = "Scoring"
    device: torch.device = field(default_factory=resolve_device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return track(self.batches, self.title)

    def first(self: _Images, count: int | None) -> _Images:
        """The first images of them; all where no count is given."""
        return dataclasses.replace(self, batches=self.batches[:count])

    def scorer(self, config: PruneConfig) -> Scorer:
        """The scorer of the config's criterion on the images.

        Raises:
            PruningError: the criterion needs images, and there are none.
        """
        return make_scorer(config, self if len(self) else None, total_loss, device=self.device)

    def split(self: _Images, config: PruneConfig) -> tuple[_Images, _Images]:
        """The images that a config refits on, and those that judge it, which are none of them.

        Of few images, a third judges.
        """
        fitted = config.fitted_images
        held = min(config.held_back if fitted else 0, len(self) // 3)
        fitted = min(fitted, len(self) - held)
        parts = self.batches[:fitted], self.batches[fitted : fitted + held]
        first, rest = (dataclasses.replace(self, batches=batches) for batches in parts)
        return first, rest

    def joined(self) -> Sequence[Any]:
        """The same images, several a batch: for what runs them often."""
        return [
            (torch.cat([images for images, _ in part]), stack_labels([t[0] for _, t in part]))
            for part in (
                self.batches[i : i + JOINED_BATCH_SIZE]
                for i in range(0, len(self), JOINED_BATCH_SIZE)
            )
        ]

    def labelled(self, config: PruneConfig) -> LabelledImages | None:
        """What judges a config's refit; None where every refit stays."""
        fitted, held = self.split(config)
        if not len(held):
            return None
        return LabelledImages(loss=self.loss, fitted=fitted.batches, held=held.joined())

    def images(self) -> Tensor | None:
        """All images as one tensor (N, 3, H, W), None where there are none."""
        return torch.cat([images for images, _ in self.batches]) if self.batches else None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The detector's own training loss on a batch, where the model is."""
        return total_loss(model, batch)

    @torch.no_grad()
    def mean_loss(self, model: nn.Module) -> float:
        """Mean training loss over the images of a model in evaluation mode."""
        shown = dataclasses.replace(self, title="Loss")
        twin = copy_model(model).to(self.device)
        return sum(float(self.loss(twin, batch)) for batch in shown) / len(self)


def calibrate(
    exp: Exp,
    loaded: LoadedModel,
    source: Path,
    config: PruneConfig,
    images: int,
    *,
    optional: bool = False,
    scores: bool = True,
) -> tuple[Exp, PruneConfig, Calibration]:
    """Training images for what a config needs them for.

    Args:
        exp: whose training images are taken; not changed.
        loaded: the model to prune.
        source: its file.
        config: how it is to be pruned.
        images: how many to score on.
        optional: go without where the data cannot be read and the criterion does not need them.
        scores: whether the criterion has to choose, or a plan is there.

    Returns:
        The Exp as it follows the checkpoint; the config, compensation that needs data switched off
        where there are none; and the images.

    Raises:
        PruningError: the data cannot be read.
    """
    count = images_needed(config, images)
    try:
        exp = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
        batches = exp.calibration_batches(count, CALIBRATION_BATCH_SIZE)
    except DataError as error:
        if optional and not (scores and CRITERIA[config.importance].needs_data):
            logger.warning(f"without calibration images, so nothing is reconstructed: {error}")
            config = dataclasses.replace(config, reconstruct=0, bn_recalibrate=0)
            return exp, config, Calibration()
        raise PruningError(
            f"{error}. Without data there is only what needs none: importance lamp or another of "
            "the weights alone, reconstruct 0 and bn_recalibrate 0"
        ) from error
    if not batches:
        raise PruningError("the training split has no image with objects to calibrate on")
    return exp, config, Calibration(batches=batches)


def images_needed(config: PruneConfig, scored: int) -> int:
    """How many images a config takes in all, scored on as many."""
    fitted = config.fitted_images
    return max(scored, fitted + (config.held_back if fitted else 0))


def probe() -> Tensor:
    """A small random image: what tracing and verification need."""
    return 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def total_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The detector's own training loss on (images, targets), where the model is."""
    device = next(model.parameters()).device
    images, targets = (part.to(device) for part in batch)
    loss: Tensor = model.loss(images, targets)["total_loss"]  # type: ignore[operator]
    return loss
