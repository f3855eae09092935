"""Wall-clock times of several works, interleaved so that noise hits all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from loguru import logger

from yolox.utils.progress import track

MIN_RUNS = 3
UNSTEADY = 2.0  # times the fastest run, that a tenth of the runs take longer than

T = TypeVar("T")


def compared(before_ms: float, after_ms: float) -> str:
    """How fast or slow the second of two times is: always a ratio of at least 1, in words."""
    if after_ms > before_ms:
        return f"{after_ms / before_ms:.2f} × as long"
    return f"{before_ms / after_ms:.2f} × as fast"


def unsteadiness(milliseconds: Sequence[float]) -> str:
    """The spread of runs that differ too much for their median to be trusted; empty otherwise."""
    least, p90 = min(milliseconds), float(np.percentile(milliseconds, 90))
    return spread(least, statistics.median(milliseconds), p90)


def spread(least: float, median: float, p90: float) -> str:
    """The same from the figures themselves."""
    if p90 <= UNSTEADY * least:
        return ""
    return f"median {median:.2f} ms, but from {least:.2f} to {p90:.2f} (fastest to slowest tenth)"


def tell_unsteady(records: Iterable[tuple[str, Sequence[float]]]) -> None:
    """Warn of times that are unsteady, once for all of them.

    Args:
        records: what was timed, and its milliseconds.
    """
    if found := [f"{name}: {told}" for name, times in records if (told := unsteadiness(times))]:
        logger.warning(
            f"the times are unsteady, so their ratios are rough: {'; '.join(found)}; something "
            "else may keep this machine busy"
        )


def interleave(
    works: Sequence[Callable[[], object]],
    *,
    runs: int = 30,
    warmup: int = 5,
    at_most: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each timed call, a list a work; see `take_turns` for the order of calls.

    Args:
        works: what is timed. A work on a GPU waits for its result itself.
        runs: rounds that count.
        warmup: rounds before them.
        at_most: seconds after which no more rounds are begun, as there.
        clock: seconds, as they pass.
    """

    def timed(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return 1e3 * (clock() - start)

    timers = [lambda work=work: timed(work) for work in works]
    return take_turns(timers, runs=runs, warmup=warmup, at_most=at_most, clock=clock)


def take_turns(
    works: Sequence[Callable[[], T]],
    *,
    runs: int = 30,
    warmup: int = 5,
    at_most: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    description: str = "",
) -> list[list[T]]:
    """What works that measure themselves return, a list a work.

    They take turns, round by round, so that a slow moment of the machine hurts all alike. A turn
    is two calls, of which the second counts: the first brings the work's weights back into the
    caches and lets the threads of the work before it fall asleep, as if each ran alone.

    Args:
        works: each returns a measurement of itself.
        runs: rounds that count.
        warmup: rounds before them, of a call each.
        at_most: seconds, warm-up included, after which no more rounds are begun, once three have
            counted.
        clock: seconds from some moment on.
        description: of a progress bar; none where it is empty.
    """
    results: list[list[T]] = [[] for _ in works]
    begun = clock()
    rounds = range(-warmup, runs)
    for number in track(rounds, description) if description else rounds:
        if number >= MIN_RUNS and clock() - begun > at_most:
            break
        for work, record in zip(works, results, strict=True):
            result = work()
            if number >= 0:
                result = work()
                record.append(result)
    return results
