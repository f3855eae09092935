"""Loaders: batches for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch.utils import data

from yolox.data.datadir import get_yolox_datadir as get_yolox_datadir
from yolox.data.datasets.mosaicdetection import MosaicDetection
from yolox.data.datasets.sample import DetectionDataset
from yolox.data.errors import DataError
from yolox.data.samplers import EpochSampler, TrainBatchSampler


def worker_init_reset_seed(worker_id: int) -> None:
    """Set a worker up: no threads of its own, for workers are the parallelism.

    No seed is set (an official Exp passes this function to have one): all of a sample's randomness
    comes with its ``Draw``.
    """
    del worker_id
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class DataLoader(data.DataLoader[Any]):
    """A loader of epochs, whose worker processes' errors read as if there were no workers.

    Batches are ``[images, targets, img_info, ids]``; the same for any ``num_workers``.

    images: float32 (batch, 3, height, width) 0..255. targets: float32 (batch, max_labels, 5) as
    class, cx, cy, w, h in input pixels. img_info: [heights, widths], each int64 (batch,).
    ids: int64 (batch, 1).
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except DataError as error:
            # A worker's error arrives as its whole traceback, ending in the message.
            marker = f"{type(error).__module__}.{type(error).__qualname__}: "
            raise DataError(str(error).rpartition(marker)[2].rstrip()) from None

    def set_epoch(self, epoch: int, mosaic: bool) -> None:
        """Choose what the next iteration yields; see ``TrainBatchSampler.set_epoch``."""
        if isinstance(self.batch_sampler, EpochSampler):
            self.batch_sampler.set_epoch(epoch, mosaic)


def build_train_loader(
    dataset: MosaicDetection,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """A training loader; ``batch_size`` is that of this process. See ``TrainBatchSampler``."""
    sampler = TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=worker_init_reset_seed,
        persistent_workers=num_workers > 0,
    )


def build_eval_loader(
    dataset: DetectionDataset,
    *,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Every image once, in order; of several processes, each takes every ``world_size``-th.

    Batches are as ``DataLoader``'s, targets being what the data set's ``preproc`` returns.
    """
    indices: Sequence[int] = range(rank, len(dataset), world_size)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=indices,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=worker_init_reset_seed,
    )
