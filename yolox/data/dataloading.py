"""Loaders: batches for training and for evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from yolox.data.datasets.mosaicdetection import MosaicDetection
from yolox.data.datasets.sample import DetectionDataset
from yolox.data.errors import DataError
from yolox.data.samplers import TrainBatchSampler


def get_yolox_datadir() -> str:
    """The folder that holds data sets.

    The environment variable YOLOX_DATADIR if set; else ``datasets`` in the current folder if it
    is there; else ``datasets`` beside the ``yolox`` package.
    """
    from_env = os.environ.get("YOLOX_DATADIR")
    if from_env:
        return from_env
    here = Path.cwd() / "datasets"
    return str(here if here.is_dir() else Path(__file__).resolve().parents[2] / "datasets")


def _one_thread(worker_id: int) -> None:
    """Workers are the parallelism: threads inside each would only fight for the same cores."""
    del worker_id
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class _Loader(DataLoader[Any]):
    """A loader whose worker processes' errors read as if there were no workers."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except DataError as error:
            # A worker's error arrives as its whole traceback, ending in the message.
            marker = f"{DataError.__module__}.{DataError.__qualname__}: "
            raise DataError(str(error).rpartition(marker)[2].rstrip()) from None


class TrainLoader(_Loader):
    """Batches ``[images, targets, img_info, ids]`` of one epoch; the same for any ``num_workers``.

    images: float32 (batch, 3, height, width) 0..255. targets: float32 (batch, max_labels, 5) as
    class, cx, cy, w, h in input pixels. img_info: [heights, widths], each int64 (batch,).
    ids: int64 (batch, 1).
    """

    def __init__(
        self,
        dataset: MosaicDetection,
        sampler: TrainBatchSampler,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=_one_thread,
            persistent_workers=num_workers > 0,
        )
        self._draws = sampler

    def set_epoch(self, epoch: int, mosaic: bool) -> None:
        """Choose what the next iteration yields; see ``TrainBatchSampler.set_epoch``."""
        self._draws.set_epoch(epoch, mosaic)


def build_train_loader(
    dataset: MosaicDetection,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainLoader:
    """A training loader; ``batch_size`` is that of this process. See ``TrainBatchSampler``."""
    sampler = TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size)
    return TrainLoader(dataset, sampler, num_workers, pin_memory)


def build_eval_loader(
    dataset: DetectionDataset,
    *,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Every image once, in order; of several processes, each takes every ``world_size``-th.

    Batches are as ``TrainLoader``'s, targets being what the data set's ``preproc`` returns.
    """
    indices: Sequence[int] = range(rank, len(dataset), world_size)
    return _Loader(
        dataset,
        batch_size=batch_size,
        sampler=indices,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
    )
