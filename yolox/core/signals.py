"""Ctrl-C and SIGTERM as an exception."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STDERR = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Interrupted` on the first SIGINT or SIGTERM; a second one ends the process at once.

    Does nothing outside the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != owner:
            return  # a loader's worker, forked from this process: this process ends it
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def postponed(what: str) -> Iterator[Callable[[], int]]:
    """Let the first SIGINT or SIGTERM wait; a second one ends the process at once.

    Gives a function that returns the number of the signal that waits, 0 where none does. Whoever
    asks it raises `Interrupted` where that is safe; at the latest the end of the block raises it.
    Signals that would not have raised anything are left alone, as all of them are outside the main
    thread.

    Args:
        what: the process does before it ends, for a line at the terminal.
    """
    waiting = 0
    owner = os.getpid()

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal waiting
        del frame
        if os.getpid() != owner:
            return  # a loader's worker
        waiting = number
        signal.signal(number, signal.SIG_DFL)
        # Logging may be what was interrupted, and does not bear being called again within.
        os.write(STDERR, f"{what}; once more ends at once\n".encode())

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: h for n in SIGNALS if callable(h := signal.getsignal(n))}
    for number in before:
        signal.signal(number, wait)
    try:
        yield lambda: waiting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise Interrupted(waiting)
