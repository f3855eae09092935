"""The user's own cache folder, and locks for what several processes make there at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from loguru import logger

if sys.platform != "win32":
    import fcntl


def cache_folder() -> Path:
    """``$YOLOX_CACHE``, else ``$XDG_CACHE_HOME/yolox``, else ``~/.cache/yolox``. May not exist."""
    if own := os.environ.get("YOLOX_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "yolox"


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keep other processes out of the same block; the lock of a killed process goes with it.

    Args:
        path: the lock file, which stays. Its folder must be there and writable.

    Yields:
        Whether no other process is in the block: False where there are no locks (not POSIX, some
        network file systems).
    """
    with path.open("ab") as file:
        yield _lock(file, path)


def _lock(file: BinaryIO, path: Path) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info(f"waiting for another process, which holds {path}")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
