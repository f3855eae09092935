"""Whether other programs keep the processors busy while this process computes on them."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from yolox.utils.cores import cores

_TASKS = Path("/proc/self/task")
_NANOSECOND = 1e-9
# Seconds waited for a second of computing. Measured with two threads on two cores: 0.1 alone, with
# two workers that load images, and 1.0 beside one busy process.
_SHARED = 0.5
# Shorter intervals tell of a moment, such as the start of another program.
_SHORTEST = 20.0


class ContentionWatch:
    """Tells once that the processors of a computation are shared with other programs.

    PyTorch's threads wait for each other after each operation, so that a thread that is not
    scheduled stops all of them. Measured on two cores beside one busy process, a training step with
    two threads fell to a twelfth of its speed, with one thread to four fifths.

    Linux accounts for the time that each thread was ready to run and had no processor; elsewhere
    nothing is told.
    """

    def __init__(self, tasks: Path = _TASKS) -> None:
        self._tasks = tasks
        self._told = False
        self._since = time.monotonic()
        self._before = self._read()

    def advice(self) -> str | None:
        """A sentence for the log if threads waited for over half of the time that they ran.

        Counted since the last call.

        Calls within 20 s of the last interval's start, and those after the first sentence, are
        answered with None.
        """
        now = time.monotonic()
        if self._told or now - self._since < _SHORTEST:
            return None
        current = self._read()
        run, waited = (
            sum(
                values[i] - self._before.get(thread, (0, 0))[i]
                for thread, values in current.items()
            )
            for i in (0, 1)
        )
        self._since, self._before = now, current
        if waited <= _SHARED * run or not run:
            return None
        self._told = True
        threads = torch.get_num_threads()
        text = (
            "other programs keep the processors busy: for each second of computing, the threads of "
            f"this process waited {waited / run:.1f} s for one of the {cores()} cores"
        )
        if threads == 1:
            return text
        return (
            f"{text}. {threads} threads wait for each other and lose far more than their share: "
            "stop the other programs, or start with OMP_NUM_THREADS=1 in the environment"
        )

    def _read(self) -> dict[str, tuple[float, float]]:
        """Seconds of each thread: computing, and ready but without a processor."""
        found = {}
        for path in self._tasks.glob("*/schedstat"):
            try:
                run, waited, *_ = path.read_text(encoding="ascii").split()
            except (OSError, ValueError):  # the thread has ended, or the system does not account
                continue
            found[path.parent.name] = int(run) * _NANOSECOND, int(waited) * _NANOSECOND
        return found
