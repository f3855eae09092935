"""Training commands as processes forked from one that has imported everything: they start at once.

What is to happen in such a process is a function of its test module, called before the command.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from yolox.core import Trainer
from yolox.tools import cli, train

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.e2e.forks"])
TIMEOUT = 200.0  # seconds; a hang, on the slowest of machines


class Forked:
    """A running training command; `finish` gives its status and log."""

    def __init__(
        self,
        log: Path,
        *args: object,
        before: Callable[[], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self.process: BaseProcess = _CONTEXT.Process(
            target=_main, args=(log, [str(arg) for arg in args], before, dict(env or {}))
        )
        self.process.start()

    def finish(self) -> tuple[int, str]:
        """Status (negative: by which signal it was killed) and log."""
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"hangs: {self._log.read_text(encoding='utf-8')}")
        return self.process.exitcode, self._log.read_text(encoding="utf-8")


def two_ranks(
    folder: Path, *args: object, before: Sequence[Callable[[], None] | None] = (None, None)
) -> list[tuple[int, str]]:
    """Status and log of two processes of a group."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        Forked(
            folder / f"rank{rank}.log", "-d", 2, "--precision", "fp32", *args,
            before=before[rank], env={**meeting, "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    return [rank.finish() for rank in ranks]


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def at_step(number: int, action: Callable[[Trainer], None]) -> None:
    """Make this process's trainer do something before one of its steps, counted from 1."""
    step, count = Trainer.train_step, 0

    def counted(trainer: Trainer, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            action(trainer)
        return step(trainer, *args)

    Trainer.train_step = counted  # type: ignore[method-assign]


def _main(
    log: Path, args: list[str], before: Callable[[], None] | None, env: dict[str, str]
) -> None:
    os.environ.update(env)
    # As in a command that a person starts, whatever started this process.
    multiprocessing.set_start_method("fork", force=True)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if before:
        before()
    sys.exit(cli.run(train.main, train.make_parser, args))
