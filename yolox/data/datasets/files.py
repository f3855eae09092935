"""Files and folders as data sets name them."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from yolox.data.errors import DataError

IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".jfif",
    ".mpo",
    ".gif",
)


def names_in(folder: Path, pattern: str) -> str:
    """The first names in a folder that match a pattern, for a message."""
    names = sorted(path.name for path in folder.glob(pattern))
    return ", ".join(names[:20]) or "none"


def is_file(path: str | Path) -> bool:
    """Whether a file is there; False, too, for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - a text is enough, and a Path takes as long to make


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, blank ones left out. Raises DataError if unreadable."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): is it there?") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from None
    return [line for line in map(str.strip, text.splitlines()) if line]


def path_inside(folder: Path, name: str) -> Path | None:
    """The file that a data set names by a path below a folder; None if the path leads out of it.

    Decided by the name alone, both kinds of slashes being separators: symbolic links in the folder
    may lead anywhere, for they are the person's own arrangement, but no ``..`` is followed.
    """
    place = place_inside(name)
    return None if place is None else folder / place


def place_inside(name: str) -> str | None:
    """As `path_inside`, below no folder in particular, with slashes."""
    name = posixpath.normpath(name.replace("\\", "/"))
    if name in (".", "..") or name.startswith(("/", "../")) or re.match("[A-Za-z]:/", name):
        return None
    if "\0" in name or not _encodable(name):
        return None
    return name


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
