"""One process a device, started and watched by a process that does nothing else.

Whatever ends one of them ends all: a process that waits for a dead one waits for ever on a GPU.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from yolox.core.failures import PEER_LOST_STATUS
from yolox.core.signals import Interrupted
from yolox.utils.errors import UserError

PARENT_VARIABLE = "YOLOX_PARENT"  # environment variable: the watching process
GRACE_SECONDS = 15.0  # from the end of one process to that of the others
_POLL_SECONDS = 0.1


def supervise(
    command: Sequence[str], processes: int, *, machines: int = 1, grace: float = GRACE_SECONDS
) -> int:
    """Run a command as several processes of a group on this machine; returns the exit status.

    Each finds its number in ``LOCAL_RANK``, how many there are here in ``LOCAL_WORLD_SIZE``, and
    where to meet in ``MASTER_ADDR`` and ``MASTER_PORT``, on which several machines have agreed
    before. Each is in a session of its own, so that Ctrl-C reaches it once, from here.

    Args:
        command: as for `subprocess.Popen`.
        processes: how many on this machine.
        machines: how many do this.
        grace: seconds that the others get to end after one has failed, or was told to stop.

    Raises:
        UserError: one was killed by a signal, or what failed is on another machine.
        Interrupted: this process was told to stop, and they are gone.
    """
    shared = {
        **os.environ,
        PARENT_VARIABLE: str(os.getpid()),
        "LOCAL_WORLD_SIZE": str(processes),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if machines == 1:  # whatever an earlier run or a container has left in the environment
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
        shared.update(meeting)
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            environment = {**shared, "LOCAL_RANK": str(rank)}
            child = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
            children.append(child)
        while all(child.poll() in (None, 0) for child in children):
            if all(child.returncode == 0 for child in children):
                return 0
            time.sleep(_POLL_SECONDS)
        first = [child.returncode for child in children]
        _wait(children, grace)
        return _verdict(first, [child.returncode for child in children])
    except Interrupted as stop:
        for child in children:
            child.send_signal(stop.number)
        _wait(children, grace)
        raise Interrupted(stop.number, "") from None  # they have said what there is to say
    finally:
        _wait(children, 0)


def is_supervised() -> bool:
    """Whether `supervise` started this process."""
    return PARENT_VARIABLE in os.environ


def end_with_parent() -> None:
    """In a process that `supervise` started: end when the watching process is gone."""
    threading.Thread(target=_watch, args=(int(os.environ[PARENT_VARIABLE]),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(PEER_LOST_STATUS)


def _wait(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for all to end; kill those that are left then, for a hanging one heeds nothing else."""
    deadline = time.monotonic() + seconds
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()


def _verdict(first: Sequence[int | None], last: Sequence[int]) -> int:
    """The status of the failure that ended the others.

    Args:
        first: statuses by rank when a failure was first seen; None for those that still ran.
        last: statuses in the end.
    """
    for rank, status in enumerate(first):
        if status is not None and status < 0:
            cause = ", out of memory perhaps" if -status == signal.SIGKILL else ""
            raise UserError(
                f"process {rank} of {len(first)} was ended by {signal.Signals(-status).name}"
                f"{cause}: the run stopped; its latest_ckpt.pth as `checkpoint`, with "
                "`resume`, continues it"
            )
    causes = [status for status in (*first, *last) if status and status > 0]
    own = [status for status in causes if status != PEER_LOST_STATUS]
    if own:
        return own[0]
    raise UserError(
        "the connection to a process on another machine was lost: that machine's log says why; "
        "its latest_ckpt.pth as `checkpoint`, with `resume`, continues it"
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
