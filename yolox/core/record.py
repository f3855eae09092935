"""What a run tells of itself: mean losses, speed, and curves for TensorBoard."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from loguru import logger
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    HistogramProto,
    Summary,
)
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch import Tensor

from yolox.core.step import loss_names
from yolox.utils.dist import gather_values

_BINS = 40


class Meter:
    """Means of the losses and the speed since it was last read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, float] = {}
        self._batches = 0
        self._images = 0
        self._start = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], images: int) -> None:
        """Count a batch: its losses, and how many images all processes together saw."""
        for name in loss_names(losses):
            self._sums[name] = self._sums.get(name, 0.0) + float(losses[name].detach())
        self._batches += 1
        self._images += images

    def read(self) -> tuple[dict[str, float], float, float]:
        """Losses, means over batches and processes; images a second; seconds a batch.

        Collective: called by every process of a group.
        """
        seconds = time.perf_counter() - self._start
        own = torch.tensor(list(self._sums.values()), device=self._device) / self._batches
        means = dict(zip(self._sums, gather_values(own).mean(0).tolist(), strict=True))
        result = means, self._images / seconds, seconds / self._batches
        self._reset()
        return result


class Curves:
    """TensorBoard's files. Where they cannot be written, training goes on without them.

    Written at once and in this thread: TensorBoard's own writer has one whose errors cannot be
    caught.

    Args:
        folder: of the files; None writes none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file: IO[bytes] | None = None
        if folder is not None:
            name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{socket.gethostname()}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = (folder / name).open("wb")
            except OSError as error:
                self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, iteration: int, values: Mapping[str, float]) -> None:
        """A point of several curves."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        summary = Summary(value=points)
        self._write(Event(wall_time=time.time(), step=iteration, summary=summary))

    def histogram(self, iteration: int, tag: str, values: Tensor) -> None:
        """The distribution of finite values, any shape, at least one."""
        numbers = values.detach().double().cpu().numpy().ravel()
        counts, edges = np.histogram(numbers, bins=_BINS)
        proto = HistogramProto(
            min=numbers.min(),
            max=numbers.max(),
            num=len(numbers),
            sum=numbers.sum(),
            sum_squares=(numbers**2).sum(),
            # A bucket reaches down to the limit before it: the first one is empty.
            bucket_limit=edges.tolist(),
            bucket=[0, *counts.tolist()],
        )
        summary = Summary(value=[Summary.Value(tag=tag, histo=proto)])
        self._write(Event(wall_time=time.time(), step=iteration, summary=summary))

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def _write(self, event: Event) -> None:
        if self._file:
            try:
                RecordWriter(self._file).write(event.SerializeToString())
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._file:
            with suppress(OSError):
                self._file.close()
        self._file = None
        logger.warning(f"no more TensorBoard curves ({error}): training goes on without them")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
