"""Loaders: batches for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import data
from torch.utils.data import default_collate

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


def stack_labels(labels: Sequence[Any]) -> Tensor:
    """Labels (n_i, 5) of a batch's images, arrays or tensors, as one tensor (batch, n, 5).

    n is the largest of them; zero rows are padding.
    """
    return pad_sequence([torch.as_tensor(rows) for rows in labels], batch_first=True)


def collate_samples(items: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Samples (image, labels, …) as a batch, with as many rows of labels as it needs."""
    return [
        stack_labels(column) if position == 1 else default_collate(list(column))
        for position, column in enumerate(zip(*items, strict=True))
    ]


class DataLoader(data.DataLoader[Any]):
    """A loader of epochs, whose worker processes' errors read as if there were no workers.

    Batches are ``[images, targets, img_info, ids]``; the same for any ``num_workers``. They are
    put together by `collate_samples` unless a ``collate_fn`` is given.

    images: float32 (batch, 3, height, width) 0..255. targets: float32 (batch, n, 5) as
    class, cx, cy, w, h in input pixels, n the objects of the fullest image; zero rows are padding.
    img_info: [heights, widths], each int64 (batch,). ids: int64 (batch, 1).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.collate_fn is default_collate:
            self.collate_fn = collate_samples

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except DataError as error:
            # A worker's error arrives as its whole traceback, ending in the message.
            marker = f"{type(error).__module__}.{type(error).__qualname__}: "
            raise DataError(str(error).rpartition(marker)[2].rstrip()) from None

    def set_epoch(self, epoch: int, mosaic: bool, first: int = 0) -> None:
        """Choose what the next iteration yields; see ``TrainBatchSampler.set_epoch``."""
        if isinstance(self.batch_sampler, EpochSampler):
            self.batch_sampler.set_epoch(epoch, mosaic, first)


def build_train_loader(
    dataset: MosaicDetection,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """A training loader; ``batch_size`` is that of this process. See ``TrainBatchSampler``."""
    sampler = TrainBatchSampler(len(dataset), batch_size, seed, rank, world_size)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
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
        worker_init_fn=worker_init_reset_seed,
    )
