"""Data sets as Ultralytics reads them: classes, images to calibrate on, AP by its own validator."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import LOGGER

from yolox.jobs.calibration import Calibration, images_needed
from yolox.pruning import CRITERIA, PruneConfig, PruningError
from yolox.ultralytics.detector import Batch, detection_loss
from yolox.ultralytics.messages import cause_of
from yolox.utils.device import CPU
from yolox.utils.errors import UserError
from yolox.utils.printable import printable
from yolox.utils.progress import track
from yolox.utils.scratch import scratch_folder

DATA_WORKERS = 0  # a validator's loader: processes of their own outlast a failure


@contextmanager
def quiet() -> Iterator[None]:
    """Within it Ultralytics says nothing but warnings."""
    before = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(before)


def read_data(source: str) -> dict[str, Any]:
    """What a data set's YAML says, its paths resolved; downloads what Ultralytics downloads.

    Raises:
        UserError: it cannot be read, or its images are not there.
    """
    try:
        with quiet():
            data: dict[str, Any] = check_det_dataset(source)
    except Exception as error:  # of many kinds
        raise UserError(f"data set {source}: {cause_of(error)}") from error
    return data


def require_classes(model: Any, data: dict[str, Any], source: str) -> None:
    """Raise `UserError` unless a data set has as many classes as a model; warn of other names."""
    names = list(dict(model.names).values())
    classes = int(model.model[-1].nc)
    other = list(dict(data["names"]).values())
    if classes != int(data["nc"]):
        raise UserError(
            f"the model distinguishes {classes} classes ({_few(names)}) and {source} has "
            f"{data['nc']} ({_few(other)}): give the data set that it was trained on, or train the "
            "whole model on this one first, and prune then"
        )
    if names != other:
        logger.warning(
            f"the model's classes are {_few(names)}, those of {source} are {_few(other)}: they are "
            "taken to be the same in this order"
        )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(printable(str(name)) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} …"


@dataclass(frozen=True, kw_only=True)
class CalibrationImages(Calibration):
    """Training images with their labels as Ultralytics' loader gives them, uint8, one a batch."""

    def images(self) -> Tensor | None:
        """All images (N, 3, H, W) in [0, 1], None where there are none."""
        if not self.batches:
            return None
        return torch.cat([batch["img"] for batch in self.batches]).float() / 255

    def joined(self) -> Sequence[Any]:
        """See `Calibration`."""
        return self.batches

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Ultralytics' own training loss."""
        return detection_loss(model, batch)


def read_calibration(
    data: dict[str, Any], count: int, size: int, stride: int, seed: int
) -> CalibrationImages:
    """Some training images with objects, letterboxed to a square and not augmented.

    Raises:
        PruningError: there are none.
    """
    settings = get_cfg(overrides={"task": "detect", "imgsz": size})
    try:
        with quiet():
            dataset = build_yolo_dataset(
                settings, data["train"], 1, data, mode="val", rect=False, stride=stride
            )
    except Exception as error:
        raise PruningError(f"the training images cannot be read: {cause_of(error)}") from error
    filled = [n for n, label in enumerate(dataset.labels) if len(label["cls"])]
    if not filled:
        raise PruningError("the training split has no image with objects to calibrate on")
    order = np.random.default_rng(seed).permutation(filled)[:count]
    batches = [dataset.collate_fn([dataset[int(number)]]) for number in track(order, "Reading")]
    return CalibrationImages(batches=batches)


def calibrate(
    model: Any,
    source: str | None,
    config: PruneConfig,
    images: int,
    size: int,
    *,
    scores: bool = True,
) -> tuple[PruneConfig, CalibrationImages]:
    """Training images for what a config needs them for; without a data set it does without.

    Args:
        model: a detector as it was read.
        source: data set as Ultralytics takes it, None for none.
        config: what the images are for.
        images: how many to score on.
        size: side of the images.
        scores: whether a criterion has to choose, or a plan is there.

    Raises:
        UserError: the data set cannot be read, or has other classes.
        PruningError: the criterion or what is asked for after the cut needs images.
    """
    if source is None:
        if scores and CRITERIA[config.importance].needs_data:
            raise PruningError(
                f"importance {config.importance} needs real images: give `data`, or use a "
                "criterion of the weights alone, such as `importance='bn'`"
            )
        if config.fitted_images:
            logger.warning("without `data` no layer is refitted: all stay as the cut leaves them")
        return replace(config, reconstruct=0, bn_recalibrate=0), CalibrationImages()
    data = read_data(source)
    require_classes(model, data, source)
    count = images_needed(config, images)
    stride = max(int(model.stride.max()), 32)
    return config, read_calibration(data, count, size, stride, config.seed)


def average_precision(
    model: Any, source: str, size: int, batch: int, device: torch.device = CPU
) -> tuple[float, float]:
    """AP50-95 and AP50 by Ultralytics' validator, on the data set's val split."""
    with scratch_folder() as folder, quiet():
        validator = DetectionValidator(
            args={
                "task": "detect",
                "mode": "val",
                "data": source,
                "imgsz": size,
                "batch": batch,
                "plots": False,
                "verbose": False,
                "workers": DATA_WORKERS,
                "device": ultralytics_name(device),
            },
            save_dir=folder,
        )
        found = validator(model=copy.deepcopy(model).eval())
    return float(found["metrics/mAP50-95(B)"]), float(found["metrics/mAP50(B)"])


def ultralytics_name(device: torch.device) -> str:
    """What Ultralytics calls a device: a GPU of CUDA by its number."""
    return str(device.index or 0) if device.type == "cuda" else str(device)
