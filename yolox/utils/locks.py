"""Who may write: one run a folder, one process a file. Locks of a killed process go with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolox.utils.errors import UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 62  # a byte that nobody writes: Windows keeps others from a locked one
_MAX_TRIES = 100

_claims: dict[Path, int] = {}  # this process's, with their open files: locks know no nesting


@contextmanager
def claimed(folder: Path, error: type[UserError] = UserError, *, name: str = "") -> Iterator[None]:
    """Keep other processes from writing into a folder, which is made if need be, and goes if empty.

    Taken again by the process that has it, it is the same claim. Where a file system has no locks,
    nobody is kept out. Of several processes of one run, one claims for all.

    Args:
        folder: of the run's files.
        error: raised at once where another process has it, or the folder cannot be written into.
        name: claim just the files that go by this name in it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / (f".{name}.lock" if name else ".lock")
        is_new = path not in _claims
        if is_new:
            _claims[path] = _claim(path, folder / name if name else folder, error)
    except OSError as cause:
        raise error(
            f"cannot write into {folder} ({cause.strerror}): choose another folder"
        ) from cause
    try:
        yield
    finally:
        if is_new and path in _claims:  # a forked process has no part in it
            _release(path, _claims.pop(path))
            for place in made:
                with suppress(OSError):  # something was written into it
                    place.rmdir()


def hold(handle: int, *, wait: bool = False) -> bool | None:
    """Mark an open file as in use, until it is closed or its process ends.

    Args:
        handle: of the file.
        wait: until no other process has it; on Windows ten seconds at most.

    Returns:
        Whether no other process has: None where the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _claim(path: Path, place: Path, error: type[UserError]) -> int:
    """Lock a file; returns its handle. Raises OSError where it cannot be made."""
    for _ in range(_MAX_TRIES):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held = hold(handle)
        if held is False:
            holder = os.read(handle, 200).decode(errors="replace")
            os.close(handle)
            raise error(
                f"another run writes into {place} ({holder or 'it has just started'}): wait until "
                "it ends, or choose another folder for this one"
            )
        if held is None:
            return handle
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            with suppress(OSError):  # a full disk
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)  # the run that had it has just removed it
    raise error(f"other runs keep writing into {place}: choose another folder for this one")


def _release(path: Path, handle: int) -> None:
    if sys.platform == "win32":  # which removes no open file
        os.close(handle)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    if sys.platform != "win32":
        os.close(handle)


def _forget() -> None:
    """In a forked process: leave the locks to the one that took them, which it may outlive."""
    for handle in _claims.values():
        os.close(handle)
    _claims.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget)
