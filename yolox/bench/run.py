"""Measured time of models on their runtimes: forward, what comes before and after it, all of it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolox.bench.cases import OpenedCase
from yolox.utils.threads import own_threads, set_threads
from yolox.utils.timing import take_turns


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of a run: median, 90th percentile (interpolated), least, and of how many."""

    median: float
    p90: float
    least: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Times:
        """The figures of at least one time."""
        return cls(
            median=statistics.median(milliseconds),
            p90=float(np.percentile(milliseconds, 90)),
            least=min(milliseconds),
            runs=len(milliseconds),
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Times of an entry, all of a whole batch.

    Attributes:
        runtime, precision, threads, batch: as in `OpenedCase`.
        preprocess: letterbox of an image of the given size, for each image of the batch.
        forward: the runtime, from a NumPy array to a NumPy array.
        postprocess: decoding where the file does not, score filter and NMS.
        whole: the three in a row.
        detections: of the image.
    """

    runtime: str
    precision: str
    threads: int
    batch: int
    preprocess: Times
    forward: Times
    postprocess: Times
    whole: Times
    detections: int

    @property
    def images_per_second(self) -> float:
        """Throughput of the forward pass alone, by its median."""
        return 1e3 * self.batch / self.forward.median

    @property
    def whole_images_per_second(self) -> float:
        """Throughput with what comes before and after, by the median of the whole."""
        return 1e3 * self.batch / self.whole.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "images_per_second": self.images_per_second,
            "whole_images_per_second": self.whole_images_per_second,
        }


@dataclass(frozen=True, kw_only=True)
class _Laps:
    """One run: milliseconds of its parts, and what it found on the first image."""

    preprocess: float
    forward: float
    postprocess: float
    detections: int


def measure(
    entries: Sequence[OpenedCase],
    image: NDArray[np.uint8],
    *,
    conf: float,
    nms: float,
    runs: int = 30,
    warmup: int = 5,
    at_most: float = math.inf,
    description: str = "",
) -> list[Measurement]:
    """Time entries on an image, interleaved: see :func:`yolox.utils.timing.take_turns`.

    Runtimes follow one another, and the entries of each take turns: threads of one that still wait
    for work would slow another down.

    Args:
        entries: of any runtimes, thread counts and batch sizes.
        image: BGR (height, width, 3) of any size; a batch holds it several times.
        conf: least score of a detection, in [0, 1]; a file with NMS has its own.
        nms: IoU of NMS, in [0, 1]; likewise.
        runs: rounds that count, as there.
        warmup: rounds before them, as there.
        at_most: as there, in all; a runtime's part of it is that of its entries.
        description: of the progress bar, as there.
    """
    found: dict[int, Measurement] = {}
    with own_threads():
        for runtime in dict.fromkeys(entry.runtime for entry in entries):
            numbers = [n for n, entry in enumerate(entries) if entry.runtime == runtime]
            records = take_turns(
                [partial(_run, entries[n], image, conf, nms) for n in numbers],
                runs=runs,
                warmup=warmup,
                at_most=at_most * len(numbers) / len(entries),
                description=f"{description} {runtime}" if description else "",
            )
            for n, laps in zip(numbers, records, strict=True):
                found[n] = _summarize(entries[n], laps)
    return [found[n] for n in range(len(entries))]


def _run(entry: OpenedCase, image: NDArray[np.uint8], conf: float, nms: float) -> _Laps:
    set_threads(entry.threads)
    start = time.perf_counter()
    x = np.stack([entry.prepare(image, entry.size) for _ in range(entry.batch)])
    ready = time.perf_counter()
    output = entry.run(x)
    ran = time.perf_counter()
    found = entry.finish(output, conf, nms)
    end = time.perf_counter()
    return _Laps(
        preprocess=1e3 * (ready - start),
        forward=1e3 * (ran - ready),
        postprocess=1e3 * (end - ran),
        detections=0 if found[0] is None else len(found[0]),
    )


def _summarize(entry: OpenedCase, laps: Sequence[_Laps]) -> Measurement:
    return Measurement(
        runtime=entry.runtime,
        precision=entry.precision,
        threads=entry.threads,
        batch=entry.batch,
        preprocess=Times.of([lap.preprocess for lap in laps]),
        forward=Times.of([lap.forward for lap in laps]),
        postprocess=Times.of([lap.postprocess for lap in laps]),
        whole=Times.of([lap.preprocess + lap.forward + lap.postprocess for lap in laps]),
        detections=laps[0].detections,
    )
