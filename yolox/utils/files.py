"""Files that are either whole or not there, and folders that one run at a time writes into."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from yolox.utils.errors import UserError
from yolox.utils.locks import claimed, hold

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = (*_FULL, errno.EFBIG, errno.EROFS, errno.EIO)
_TEMPORARY_SUFFIX = ".tmp"
_MAX_WRITERS = 1000  # processes that write one file
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def replacing(
    path: Path, error: type[UserError] = UserError, size: int | None = None
) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name at the end, or goes on an exception.

    A kill at any instant leaves the old or the new file, whole; what it leaves beside it is used by
    the next write of that file, or removed by `remove_leftovers`. The folder is made if need be. A
    link to a file is followed.

    Args:
        path: the file to write.
        error: raised where it cannot be written, a full disk included.
        size: bytes that it will take, for that error's message.
    """
    with replacing_together([path], error, size) as (temporary,):
        yield temporary


@contextmanager
def replacing_together(
    paths: Sequence[Path], error: type[UserError] = UserError, size: int | None = None
) -> Iterator[list[Path]]:
    """As `replacing`, for files that belong together: those of two writes never lie side by side.

    The first one is what the others belong to. A kill leaves the old files, or the new ones, or
    the first one, old or new, without those others that there was no time for.
    """
    places = [_place(path, error) for path in paths]
    alone = claimed(places[0].parent, error, name=places[0].name) if places[1:] else nullcontext()
    with alone, ExitStack() as stack:
        temporaries = [stack.enter_context(_temporary(place, error)) for place in places]
        before = places[0].exists()
        try:
            yield [temporary.path for temporary in temporaries]
            for temporary in temporaries:
                temporary.complete()
            for place in places[1:]:
                place.unlink(missing_ok=True)
            before = False
            for temporary, place in zip(temporaries, places, strict=True):
                temporary.path.replace(place)
        except BaseException as cause:
            for temporary in temporaries:
                temporary.remove()
            if isinstance(cause, UserError):
                raise
            if refusal := _refusal(cause, temporaries):
                raise error(_refused(paths[0], places[0], refusal, size, before)) from cause
            raise


def write_text(path: Path, text: str, error: type[UserError] = UserError) -> None:
    """Write a file as UTF-8, whole or not at all; raises ``error`` where it cannot be."""
    # A path that is no UTF-8 is told by its own bytes.
    write_bytes(path, text.encode("utf-8", "surrogateescape"), error)


def write_bytes(path: Path, content: bytes, error: type[UserError] = UserError) -> None:
    """Write a file, whole or not at all; raises ``error`` where it cannot be."""
    with replacing(path, error) as temporary:
        temporary.write_bytes(content)


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
    with _temporary(folder / "check", error):
        pass


def remove_leftovers(folder: Path, pattern: str) -> list[Path]:
    """Delete, and return, what killed writes of files of a name left in a folder.

    Args:
        folder: looked at itself, not what is in its folders.
        pattern: of the files' names, as ``*_ckpt.pth``. What a process is writing stays.
    """
    removed = []
    for leftover in sorted(folder.glob(f".{pattern}.*{_TEMPORARY_SUFFIX}")):
        with suppress(OSError):
            handle = os.open(leftover, _FLAGS)
            try:
                if hold(handle):
                    leftover.unlink(missing_ok=True)
                    removed.append(leftover)
            finally:
                os.close(handle)
    return removed


def _place(path: Path, error: type[UserError]) -> Path:
    """Where a file is to be: where a link leads. Raises ``error`` where something else is."""
    try:
        place = Path(os.path.realpath(path)) if path.is_symlink() else path
        if place.is_dir():
            raise error(f"cannot write {path}: it is a folder, name a file in it")
        if place.exists() and not place.is_file():
            raise error(f"cannot write {path}: it is no regular file, name another")
    except OSError as cause:
        raise error(f"cannot write {path} ({cause.strerror}): choose another") from cause
    return place


class _Temporary:
    """A file being written, held so that no other process takes it for a leftover."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle: int | None = handle
        self._made = os.fstat(handle)

    def complete(self) -> None:
        """Have it on the disk, with the rights that any new file has, ready to be renamed."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        self.path.chmod(0o666 & ~umask)
        if sys.platform == "win32":
            self.close()  # an open file cannot be renamed there

    def remove(self) -> None:
        """Delete it, unless it has been renamed: another process may have a file of its name now.

        While it is open, no other file can pass for it.
        """
        with suppress(OSError):
            is_there = os.path.samestat(self.path.lstat(), self._made)
            if sys.platform == "win32":
                self.close()
            if is_there:
                self.path.unlink()

    def close(self) -> None:
        """Let go of it."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):
                os.close(handle)


@contextmanager
def _temporary(place: Path, error: type[UserError]) -> Iterator[_Temporary]:
    """A new, empty file beside a place; whatever is left of it at the end is removed."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = _taken(place)
    except OSError as cause:
        raise error(
            f"cannot write into {place.parent} ({cause.strerror}): choose another folder"
        ) from cause
    try:
        yield temporary
    finally:
        temporary.remove()
        temporary.close()


def _taken(place: Path) -> _Temporary:
    """The first of ``.NAME.0.tmp``, ``.NAME.1.tmp`` … that no process is writing.

    One name for all times: what a killed process has left is what the next one writes into.
    """
    for number in range(_MAX_WRITERS):
        path = place.with_name(f".{place.name}.{number}{_TEMPORARY_SUFFIX}")
        try:
            handle, is_new = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            try:
                handle, is_new = os.open(path, _FLAGS), False
            except OSError:  # a link, another person's, or gone
                continue
        held = hold(handle)
        if (is_new if held is None else held) and _is_own(path, handle):
            os.ftruncate(handle, 0)
            return _Temporary(path, handle)
        os.close(handle)
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def _is_own(path: Path, handle: int) -> bool:
    """Whether an open file is still the one of its path, and nobody else's too."""
    try:
        found = path.lstat()
    except OSError:  # another process has removed it
        return False
    own = os.geteuid() if sys.platform != "win32" else found.st_uid
    is_alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == own
    return is_alone and os.path.samestat(found, os.fstat(handle))


def is_refusal(error: BaseException) -> bool:
    """Whether it is the disk's: full, read-only, failing."""
    return isinstance(error, OSError) and error.errno in _REFUSALS


def _refusal(cause: BaseException | None, temporaries: Sequence[_Temporary]) -> OSError | None:
    """The disk's refusal behind an exception: a writer in C++ raises its own on top of it."""
    own = {str(temporary.path) for temporary in temporaries}
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _REFUSALS or str(cause.filename) in own):
            return cause
        cause = cause.__context__
    return None


def is_full(error: OSError) -> bool:
    """Whether a disk or a person's share of it is: what more room would mend."""
    return error.errno in _FULL


def _refused(path: Path, place: Path, cause: OSError, size: int | None, before: bool) -> str:
    """The message; `place` is where the file is to be, which a link at `path` leads to."""
    earlier = f"; the earlier {path.name} is whole" if before else ""
    if not is_full(cause):
        return f"cannot write {path} ({cause.strerror}){earlier}. Choose another folder"
    needed = "" if size is None else f"it takes {size / 2**20:.1f} MiB, "
    free = shutil.disk_usage(place.parent).free / 2**20
    return (
        f"cannot write {path} ({cause.strerror}): {needed}{free:.1f} MiB are free there{earlier}. "
        "Make room, or choose another folder"
    )
