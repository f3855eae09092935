"""DOTA's label files: one object a line, four corners, class, difficulty.

Xia et al., "DOTA: A Large-scale Dataset for Object Detection in Aerial Images", CVPR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolox.data.convert.polygons import Corners

# Each release added classes at the end.
_V1_0 = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
_V1_5 = (*_V1_0, "container-crane")
_V2_0 = (*_V1_5, "airport", "helipad")
DOTA_CLASSES = {"1.0": _V1_0, "1.5": _V1_5, "2.0": _V2_0}

_HEADERS = ("imagesource:", "gsd:")


@dataclass(frozen=True, kw_only=True, eq=False)
class DotaObject:
    """One line of a label file.

    Attributes:
        name: of the class.
        corners: float64 (4, 2), x y in pixels of the image; may lie outside it.
        difficult: whether its difficulty is not 0.
    """

    name: str
    corners: Corners
    difficult: bool


def read_labels(path: Path) -> tuple[list[DotaObject], list[str]]:
    """The objects of a label file, and what is wrong in it as ``file:line: what``.

    A line is ``x1 y1 x2 y2 x3 y3 x4 y4 class [difficulty]``. The lines ``imagesource:`` and
    ``gsd:`` and blank ones are passed over.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        return [], [f"{path}: cannot be read ({error.strerror})"]
    except UnicodeDecodeError:
        return [], [f"{path}: is not UTF-8 text"]
    objects, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.strip().lower().startswith(_HEADERS):
            continue
        try:
            objects.append(_parse(line.split()))
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
    return objects, problems


def _parse(fields: Sequence[str]) -> DotaObject:
    if len(fields) not in (9, 10):
        raise ValueError(
            f"expected 8 numbers, a class and perhaps a difficulty, got {len(fields)} words"
        )
    try:
        numbers = [float(text) for text in fields[:8]]
    except ValueError as error:
        raise ValueError(f"corners are not 8 numbers ({error})") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError("corners are not 8 finite numbers")
    difficulty = fields[9] if len(fields) == 10 else "0"
    if not difficulty.isdigit():
        raise ValueError(f"difficulty: expected 0 or 1, got {difficulty}")
    return DotaObject(
        name=fields[8],
        corners=np.array(numbers).reshape(4, 2),
        difficult=int(difficulty) != 0,
    )


def dota_classes(found: Iterable[str], existing: Sequence[str] = ()) -> tuple[str, ...]:
    """The class list for the class names found in label files.

    That of the first DOTA release that has them all, in its order; where none has, the names
    sorted. Classes that the data set lists already keep their indices.
    """
    new = set(found) - set(existing)
    for names in DOTA_CLASSES.values():
        if new <= set(names) and tuple(existing) == names[: len(existing)]:
            return names
    return (*existing, *sorted(new))
