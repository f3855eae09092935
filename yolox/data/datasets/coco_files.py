"""Where a COCO data set keeps its annotation file and its images, as exporters lay them out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from yolox.data.datasets.files import is_file, place_inside
from yolox.data.errors import DataError, bullets

ANNOTATIONS = "annotations"


def annotation_files(data_dir: Path, json_file: str | Path) -> list[Path]:
    """The files that a name can mean, the one to read first; empty where there is none.

    In ``annotations`` of the data folder, in the data folder itself, or as it is: an absolute path,
    or one from the current folder.
    """
    places = (data_dir / ANNOTATIONS / json_file, data_dir / json_file, Path(json_file))
    found: dict[Path, Path] = {}
    for place in places:
        if is_file(place):
            found.setdefault(place.resolve(), place)
    return list(found.values())


def image_folders(data_dir: Path, name: str, annotation_file: Path) -> list[Path]:
    """The folders that images can be in, there or not, in the order of preference."""
    beside = annotation_file.parent
    own = () if beside.name == ANNOTATIONS else (beside / name, beside, beside / "images")
    folders = (
        data_dir / name,
        data_dir / "images" / name,
        *own,
        data_dir / "images",
        data_dir,
    )
    return list(dict.fromkeys(folders))


def place_images(
    names: Sequence[str], folders: Sequence[Path]
) -> tuple[Path, list[str | None], list[int]]:
    """The folder of the images, and where in it each of them is.

    Args:
        names: paths as the annotation file has them, with any kind of prefix.
        folders: see `image_folders`.

    Returns:
        The folder that holds the most of them, the first of equals; each image's path in it, None
        for one that leads out of it; and the indices of those found by the end of their path alone,
        since exporters write where the image once was.

    Raises DataError if no folder holds any.
    """
    plain = [place_inside(name) for name in names]
    there: dict[Path, list[bool]] = {}

    def held(place: Path) -> int:
        there[place] = [p is not None and is_file(f"{place}/{p}") for p in plain]
        return sum(there[place])

    folder = _fullest(folders, held, names)
    if folder is None:
        folder = _fullest(folders, lambda f: sum(_end_of(f, n) is not None for n in names), names)
    if folder is None:
        raise DataError(
            f"none of the {len(names)} images, the first of which is {names[0]}, is there. Put "
            f"them into one of these folders, or name theirs with train_name or val_name:"
            f"{bullets([str(folder) for folder in folders])}"
        )
    lost = [i for i, found in enumerate(there[folder]) if not found]
    ends = {i: end for i in lost if (end := _end_of(folder, names[i])) is not None}
    claims = Counter([*ends.values(), *(p for i, p in enumerate(plain) if p and i not in ends)])
    by_end = [i for i, end in ends.items() if claims[end] == 1]
    for i in by_end:
        plain[i] = ends[i]
    return folder, plain, by_end


def _fullest(
    folders: Sequence[Path], held: Callable[[Path], int], names: Sequence[str]
) -> Path | None:
    best, most = None, 0
    for folder in folders:
        count = held(folder)
        if count > most:
            best, most = folder, count
        if count == len(names):
            break
    return best


def _end_of(folder: Path, name: str) -> str | None:
    """The longest end of a path, or of an address, that is a file in a folder."""
    for text in dict.fromkeys((name, unquote(name))):
        parts = [part for part in re.split(r"[/\\]|\?d=", text) if part not in ("", ".", "..")]
        for start in range(len(parts)):
            place = place_inside("/".join(parts[start:]))
            if place is not None and is_file(folder / place):
                return place
    return None
