"""A progress bar for people, and a line now and then for logs."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from typing import TypeVar

from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["track"]

LOG_EVERY = 30.0  # seconds without a terminal after which a line says how far a loop is

T = TypeVar("T")
_on_screen = False  # whether a bar is there: another one inside its loop would write over it
silence = 0.0  # seconds without a line when the last loop of a log ended: short loops add up


def track(
    iterable: Iterable[T],
    description: str,
    total: int | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yield the items of ``iterable``, with a progress bar when stderr is a terminal.

    The bar goes when the loop ends; of a loop inside a loop only the outer one has a bar. When
    stderr is a file or a pipe, a line is logged instead after each half a minute in which the log
    had none, be it of one loop or of several. Only the first of the processes of a run on this
    machine tells anything.

    Args:
        iterable: what to go through.
        description: a word or two before the bar.
        total: number of items; None means ``len(iterable)`` where there is one.
        clock: seconds, as they pass.
    """
    global _on_screen
    if _on_screen or os.environ.get("LOCAL_RANK", "0") != "0":
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not sys.stderr.isatty():
        yield from _logged(iterable, description, total, clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    _on_screen = True
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield from progress.track(iterable, total=total, description=description)
    finally:
        _on_screen = False


def _logged(
    iterable: Iterable[T], description: str, total: int | None, clock: Callable[[], float]
) -> Iterator[T]:
    global silence
    last = clock() - silence  # when the log had its last line, whoever wrote it

    def note(_: object) -> None:
        nonlocal last
        last = clock()

    handler = logger.add(note, level="INFO", format="")
    try:
        for number, item in enumerate(iterable, start=1):
            yield item
            if clock() - last >= LOG_EVERY:
                logger.info(f"{description}: {number}" + (f" of {total}" if total else ""))
    finally:
        silence = clock() - last
        with suppress(ValueError):  # the logger was set up again within the loop
            logger.remove(handler)
