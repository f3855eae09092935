"""Which image goes into which training batch, and with which random seed.

A training sample is a pure function of its ``Draw``; the order of draws is a pure function of
(seed, epoch). Neither the number of workers nor of processes changes what a step sees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from yolox.utils.dist import get_rank, get_world_size

_POSITION_BITS = 40
_EPOCH_BITS = 32


class Draw(NamedTuple):
    """One training sample to make: which image, all of its randomness, and whether as a mosaic."""

    index: int  # type: ignore[assignment]  # tuple has a method of this name, not missed here
    seed: int
    mosaic: bool


def draw_seed(seed: int, epoch: int, position: int) -> int:
    """The seed of one draw: the three numbers packed, so that no two draws can share one.

    ``np.random.default_rng`` hashes it, hence neighbouring seeds give unrelated streams.
    """
    return (((seed << _EPOCH_BITS) | epoch) << _POSITION_BITS) | position


class EpochSampler(Sampler[list[Draw]]):
    """Batches of draws, one epoch an iteration.

    Attributes:
        epoch: the next iteration's, from 0.
        mosaic: whether it makes mosaics.
        first: number of batches that it leaves out at its start.
    """

    epoch = 0
    mosaic = True
    first = 0

    def set_epoch(self, epoch: int, mosaic: bool, first: int = 0) -> None:
        """Choose the epoch (from 0) that the next iteration yields, and whether with mosaic.

        So many of its first batches are left out; the length remains that of a whole epoch.
        """
        if not 0 <= epoch < 1 << _EPOCH_BITS:
            raise ValueError(f"epoch is {epoch}: expected 0 <= epoch < 2**{_EPOCH_BITS}")
        self.epoch = epoch
        self.mosaic = mosaic
        self.first = first


class TrainBatchSampler(EpochSampler):
    """Shuffled full batches of draws for one epoch at a time.

    Args:
        length: number of images, at least 1.
        batch_size: images per batch of this process; a step sees ``batch_size * world_size``.
        seed: non-negative; with the epoch it decides everything.
        rank, world_size: this process and how many there are. Ranks take interleaved slices of
            one global order, so W processes with b images a batch see, step by step, the same
            draws as one process with W * b.

    The last batch is filled up from the start of the epoch's order; a filled draw has a seed of
    its own. Raises ValueError for numbers out of range.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if length < 1:
            raise ValueError(f"cannot draw batches from {length} images: expected at least 1")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}: expected 0 or more")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}: expected 0 <= rank < world_size ({world_size})")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.length // (self.batch_size * self.world_size))

    def _order(self) -> npt.NDArray[np.int64]:
        """Image index of every global position of the epoch, the fill at its end included."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.length)
        return np.resize(order, len(self) * self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, mosaic = self.epoch, self.mosaic
        order = self._order()
        step = self.batch_size * self.world_size
        for start in range(self.first * step, len(order), step):
            positions = range(start + self.rank, start + step, self.world_size)
            yield [Draw(int(order[p]), draw_seed(self.seed, epoch, p), mosaic) for p in positions]


class InfiniteSampler(Sampler[int]):
    """Image indices without end, each pass in a new order; of several processes, its share.

    Args:
        size: number of images.
        shuffle: False for the order of the data set.
        seed: decides the orders; None is 0.
        rank, world_size: this process and how many there are; by default as the launcher says.
    """

    def __init__(
        self,
        size: int,
        shuffle: bool = True,
        seed: int | None = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"cannot draw from {size} images: expected at least 1")
        self.size = size
        self.shuffle = shuffle
        self.seed = seed or 0
        self.rank = get_rank() if rank is None else rank
        self.world_size = get_world_size() if world_size is None else world_size

    def __len__(self) -> int:
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[int]:
        for epoch in itertools.count():
            yield from self.epoch_order(epoch)

    def epoch_order(self, epoch: int) -> list[int]:
        """This process's images of a pass; as many on every process."""
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        order = np.resize(order, len(self) * self.world_size)
        return [int(index) for index in order[self.rank :: self.world_size]]


class YoloBatchSampler(EpochSampler):
    """Batches from a sampler of indices: what an official Exp's own loader is made of.

    Args:
        sampler: one iteration is an epoch; an `InfiniteSampler` is taken pass by pass, so that a
            resumed run repeats what it would have seen.
        batch_size: images per batch of this process.
        drop_last: leave out an epoch's last batch where it is not full.
        mosaic: whether the images become mosaics; the trainer switches it off at the end.
    """

    def __init__(
        self,
        sampler: InfiniteSampler | Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        mosaic: bool = True,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.mosaic = mosaic

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Draw]]:
        seed, indices = 0, list[int]()
        if isinstance(self.sampler, InfiniteSampler):
            seed, indices = self.sampler.seed, self.sampler.epoch_order(self.epoch)
        else:
            indices = [int(index) for index in self.sampler]
        # Over all processes, so that no two share a seed.
        step, first = get_world_size(), get_rank()
        draws = [
            Draw(index, draw_seed(seed, self.epoch, first + step * number), self.mosaic)
            for number, index in enumerate(indices)
        ]
        for number in range(self.first, len(self)):
            yield draws[number * self.batch_size : (number + 1) * self.batch_size]
