"""Training images that pruning scores on, refits on, and measures its loss on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from loguru import logger
from torch import Tensor, nn

from yolox.data import DataError
from yolox.exp.follow import follow_checkpoint
from yolox.exp.yolox_base import Exp
from yolox.models import LoadedModel
from yolox.pruning import CRITERIA, PruneConfig, PruningError
from yolox.pruning.importance import Scorer, make_scorer
from yolox.utils.device import default_device
from yolox.utils.model_utils import copy_model
from yolox.utils.progress import track

Batch = tuple[Tensor, Tensor]

_Images = TypeVar("_Images", bound="Calibration")

CALIBRATION_BATCH_SIZE = 1  # a Taylor score is a mean of squares: single images tell most


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Training images with their targets, one a batch; each pass over them shows its progress."""

    batches: Sequence[Any] = ()
    title: str = "Scoring"

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return track(self.batches, self.title)

    def first(self: _Images, count: int | None) -> _Images:
        """The first images of them; all where no count is given."""
        return dataclasses.replace(self, batches=self.batches[:count])

    def scorer(self, config: PruneConfig) -> Scorer:
        """The scorer of the config's criterion on the images, on a GPU if there is one.

        Raises:
            PruningError: the criterion needs images, and there are none.
        """
        return make_scorer(config, self if len(self) else None, total_loss, device=default_device())

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
        twin = copy_model(model).to(default_device())
        return sum(float(self.loss(twin, batch)) for batch in shown) / len(self)


def calibrate(
    exp: Exp,
    loaded: LoadedModel,
    source: Path,
    config: PruneConfig,
    images: int,
    *,
    optional: bool = False,
) -> tuple[Exp, PruneConfig, Calibration]:
    """Training images for what a config needs them for.

    Args:
        exp: whose training images are taken; not changed.
        loaded: the model to prune.
        source: its file.
        config: how it is to be pruned.
        images: how many to score on.
        optional: go without where the data cannot be read and the criterion does not need them.

    Returns:
        The Exp as it follows the checkpoint; the config, compensation that needs data switched off
        where there are none; and the images.

    Raises:
        PruningError: the data cannot be read.
    """
    count = max(images, config.reconstruct, config.bn_recalibrate)
    try:
        exp = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
        batches = exp.calibration_batches(count, CALIBRATION_BATCH_SIZE)
    except DataError as error:
        if optional and not CRITERIA[config.importance].needs_data:
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


def probe() -> Tensor:
    """A small random image: what tracing and verification need."""
    return 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def total_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The detector's own training loss on (images, targets), where the model is."""
    device = next(model.parameters()).device
    images, targets = (part.to(device) for part in batch)
    loss: Tensor = model.loss(images, targets)["total_loss"]  # type: ignore[operator]
    return loss
