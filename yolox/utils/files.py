"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from yolox.utils.errors import UserError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_SUFFIX = ".tmp"


@contextmanager
def replacing(
    path: Path, error: type[UserError] = UserError, size: int | None = None
) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name at the end, or goes on an exception.

    A kill at any instant leaves the old or the new file, whole; `remove_leftovers` clears up after
    it. The folder is made if need be.

    Args:
        path: the file to write.
        error: raised where it cannot be written, a full disk included.
        size: bytes that it will take, for that error's message.
    """
    if path.is_dir():
        raise error(f"cannot write {path}: it is a folder, name a file in it")
    temporary = _new_file_beside(path, error)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private; this one gets what any new file would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as cause:
        temporary.unlink(missing_ok=True)
        if refusal := _refusal(cause):
            raise error(_refused(path, refusal, size)) from cause
        raise


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as tell all of them apart.

    Raises:
        UserError: a file is given twice.
    """
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"a file is given twice: {', '.join(map(str, paths))}")


def require_writable(folder: Path, error: type[UserError] = UserError) -> None:
    """Raise ``error`` unless files can be written into a folder, which is made if need be."""
    _new_file_beside(folder / "check", error).unlink()


def remove_leftovers(folder: Path, pattern: str) -> list[Path]:
    """Delete, and return, what killed writes of files of a name left in a folder.

    Args:
        pattern: of the files' names, as ``*_ckpt.pth``. No process may be writing one.
    """
    leftovers = sorted(folder.glob(f".{pattern}.*{_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def _new_file_beside(path: Path, error: type[UserError]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    except OSError as cause:
        raise error(
            f"cannot write into {path.parent} ({cause.strerror}): choose another folder"
        ) from cause
    os.close(handle)
    return Path(name)


def _refusal(cause: BaseException | None) -> OSError | None:
    """The disk's refusal behind an exception: a writer in C++ raises its own on top of it."""
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _REFUSALS:
            return cause
        cause = cause.__context__
    return None


def _refused(path: Path, cause: OSError, size: int | None) -> str:
    needed = "" if size is None else f"it takes {size / 2**20:.1f} MiB, "
    free = shutil.disk_usage(path.parent).free / 2**20
    before = f"; the earlier {path.name} is whole" if path.exists() else ""
    return (
        f"cannot write {path} ({cause.strerror}): {needed}{free:.1f} MiB are free there{before}. "
        "Make room, or choose another folder"
    )
