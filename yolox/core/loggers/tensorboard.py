"""Curves and histograms as TensorBoard's files."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import (  # type: ignore[import-untyped]
    HistogramProto,
    Summary,
)
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from yolox.core.loggers.base import HISTOGRAM_BINS, Outcome, Pictures, RunInfo


class TensorBoard:
    """A `RunLogger` that writes into ``tensorboard`` in the run's folder.

    Written at once and in this thread: TensorBoard's own writer has one whose errors cannot be
    caught.
    """

    name = "TensorBoard curves"
    advice = ""
    errors: tuple[type[Exception], ...] = (OSError,)
    num_pictures = 0

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def start(self, run: RunInfo) -> None:
        """A new file, beside those of the stopped run where it is resumed."""
        folder = run.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{socket.gethostname()}"
        self._file = (folder / name).open("wb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """A point of several curves."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(wall_time=time.time(), step=iteration, summary=Summary(value=points)))

    def histogram(self, iteration: int, name: str, values: NDArray[np.float64]) -> None:
        """The distribution of values."""
        counts, edges = np.histogram(values, bins=HISTOGRAM_BINS)
        proto = HistogramProto(
            min=values.min(),
            max=values.max(),
            num=len(values),
            sum=values.sum(),
            sum_squares=(values**2).sum(),
            # A bucket reaches down to the limit before it: the first one is empty.
            bucket_limit=edges.tolist(),
            bucket=[0, *counts.tolist()],
        )
        summary = Summary(value=[Summary.Value(tag=name, histo=proto)])
        self._write(Event(wall_time=time.time(), step=iteration, summary=summary))

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        """None are kept: the files would grow by them with every evaluation."""

    def best_checkpoint(self, file: Path) -> None:
        """It is in the run's folder already."""

    def finish(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, event: Event) -> None:
        assert self._file is not None
        RecordWriter(self._file).write(event.SerializeToString())
        self._file.flush()
