"""A progress bar for people, and silence for logs."""

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["track"]

T = TypeVar("T")
_on_screen = False  # whether a bar is there: another one inside its loop would write over it


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of ``iterable``, with a progress bar when stderr is a terminal.

    The bar goes when the loop ends; of a loop inside a loop only the outer one has a bar. Nothing
    is printed when stderr is a file or a pipe, nor by any process but the first of a multi-process
    run on this machine.

    Args:
        iterable: what to go through.
        description: a word or two before the bar.
        total: number of items; None means ``len(iterable)`` where there is one.
    """
    global _on_screen
    if _on_screen or not sys.stderr.isatty() or os.environ.get("LOCAL_RANK", "0") != "0":
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
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
