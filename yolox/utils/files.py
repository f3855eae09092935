"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolox.utils.errors import UserError


@contextmanager
def replacing(path: Path, error: type[UserError] = UserError) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name at the end, or goes on an exception.

    A kill at any instant leaves the old or the new file, whole. The folder is made if need be.

    Args:
        path: the file to write.
        error: raised where it cannot be written.
    """
    if path.is_dir():
        raise error(f"cannot write {path}: it is a folder, name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as cause:
        raise error(
            f"cannot write into {path.parent} ({cause.strerror}): choose another folder"
        ) from cause
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private; this one gets what any new file would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
