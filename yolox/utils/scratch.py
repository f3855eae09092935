"""Folders for files on the way to others, which no kill leaves for good."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolox.utils.errors import UserError
from yolox.utils.locks import hold

_PREFIX, _LOCK = "yolox-scratch-", ".lock"
_MIN_FREE_BYTES = 1 << 20  # below it a disk is full, to a writer of more than that


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, removed at the end; those of killed processes are removed first.

    Raises:
        UserError: the disk of temporary files is full.
    """
    root = Path(tempfile.gettempdir())
    for folder in root.glob(f"{_PREFIX}*"):
        _remove_abandoned(folder)
    folder, handle = _new_folder()
    try:
        yield folder
    except (OSError, RuntimeError) as error:  # a writer in C++ gives no number
        if shutil.disk_usage(folder).free >= _MIN_FREE_BYTES:
            raise
        raise UserError(
            f"the disk of temporary files, {root}, is full: make room there, or set TMPDIR to "
            "another folder"
        ) from error
    finally:
        os.close(handle)  # first: Windows removes no open file
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> tuple[Path, int]:
    """A new folder, and the file that holds it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        # Another process may have taken it for an abandoned one before it was held.
        if hold(handle) is not False and (folder / _LOCK).exists():
            return folder, handle
        os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder of this person's that no process holds."""
    with suppress(OSError):
        if hasattr(os, "geteuid") and folder.lstat().st_uid != os.geteuid():
            return
        handle = os.open(folder / _LOCK, os.O_RDWR)
        try:
            if hold(handle):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
