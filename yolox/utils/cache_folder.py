"""The user's own cache folder, and locks for what several processes make there at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from yolox.utils.locks import hold


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
        Whether no other process is in the block: False where there are no locks (some network file
        systems).
    """
    with path.open("ab") as file:
        held = hold(file.fileno())
        if held is False:
            logger.info(f"waiting for another process, which holds {path}")
            held = hold(file.fileno(), wait=True)
        yield held is True
