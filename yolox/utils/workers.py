"""A function applied by several processes at once, where that is safe and cheap."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from yolox.utils.cores import cores
from yolox.utils.dist import ranks_here

A = TypeVar("A")
B = TypeVar("B")


def processes_to_use() -> int:
    """How many processes may share a short piece of work; 1: this one alone.

    The cores that it may use, shared with the other ranks of a run on this machine. 1 where another
    process would have to import everything anew, since none is forked (not Linux), and in a process
    that may start none (a worker of a loader).
    """
    if not sys.platform.startswith("linux") or multiprocessing.current_process().daemon:
        return 1
    return max(1, cores() // ranks_here())


def in_processes(function: Callable[[A], B], items: Sequence[A], processes: int) -> Iterator[B]:
    """Yield ``function(item)`` for each item, in their order.

    The processes are forked: the function must start no threads, log nothing, and leave the
    accelerator alone. What a process fails at, or was ended before it did, is done by this one,
    which so raises what the function raises.

    Args:
        function: its results can be pickled.
        items: what to apply it to.
        processes: how many to start at most; with 1, this one does all.
    """
    count = min(processes, len(items))
    with ExitStack() as stack:
        results: list[Connection] = []
        if count > 1:
            with suppress(OSError):  # the system gives no more processes
                for first in range(count):
                    results.append(stack.enter_context(_process(function, items[first::count])))
        for number, item in enumerate(items):
            try:
                result: B = pickle.loads(results[number % count].recv_bytes())  # noqa: S301 - its own
            except (IndexError, EOFError, OSError):
                result = function(item)
            yield result


@contextmanager
def _process(function: Callable[[A], B], items: Sequence[A]) -> Iterator[Connection]:
    """A process at work, and where its results arrive; it ends with the block."""
    context: Any = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    with here:
        with there:
            process = context.Process(
                target=_work, args=(function, items, here, there), daemon=True
            )
            process.start()
        try:
            yield here
        finally:
            process.kill()
            process.join()


def _work(
    function: Callable[[A], B], items: Sequence[A], here: Connection, there: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    here.close()  # so that sending fails when the other process is gone
    with suppress(Exception):  # the other process meets it again, and tells
        for item in items:
            # Not `send`, which would leave tensors in memory that goes with this process.
            there.send_bytes(pickle.dumps(function(item)))
