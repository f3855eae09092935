"""Images too large for the network, cut into tiles: where the tiles lie, and what they came from.

Windows are x1 y1 x2 y2 in whole pixels, the right and bottom edge excluded. A data set of tiles
keeps beside them, in ``VOC<year>/Whole``, one record an original image: its size, how it was cut,
and its objects uncut. So an evaluation on whole images needs nothing but the data set.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.data.datasets.sample import Sample
from yolox.data.errors import DataError, bullets
from yolox.utils.documents import read_json

__all__ = [
    "WHOLE_FOLDER",
    "WholeImage",
    "WholeRecord",
    "Window",
    "parse_tile_name",
    "tile_name",
    "tile_windows",
    "whole_images",
]

Window = tuple[int, int, int, int]

WHOLE_FOLDER = "Whole"
_MAX_TILES = 1_000_000  # of an image, in a record that is to be believed
# The 1 is the scale, as DOTA's tools write it: tiles are cut from the image at its own size.
_TILE_NAME = re.compile(r"(?P<source>.+)__1__(?P<x>\d+)___(?P<y>\d+)")


def tile_windows(height: int, width: int, size: int, overlap: int) -> list[Window]:
    """Windows of size × size pixels that cover an image, row by row.

    Neighbours share at least ``overlap`` pixels: the last of a row or column is shifted back inside
    and shares more. Along a side shorter than ``size`` there is one window, as long as the side.

    Raises:
        ValueError: a size below 1, or an overlap that is negative or not below ``size``.
    """
    if min(height, width, size) < 1:
        raise ValueError(f"expected sizes of at least 1, got {height} x {width}, tiles of {size}")
    if not 0 <= overlap < size:
        raise ValueError(f"overlap: expected 0 to {size - 1} for tiles of {size}, got {overlap}")
    columns, rows = (_starts(side, size, overlap) for side in (width, height))
    return [(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns]


def _starts(side: int, size: int, overlap: int) -> list[int]:
    last = max(0, side - size)
    return [*range(0, last, size - overlap), last]


def tile_name(source: str, x: int, y: int) -> str:
    """The name of the tile of an image whose top left pixel is (x, y) there."""
    return f"{source}__1__{x}___{y}"


def parse_tile_name(name: str) -> tuple[str, int, int]:
    """(source, x, y) of a name by `tile_name`. Raises ValueError for any other."""
    match = _TILE_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"not the name of a tile: expected as P0706__1__824___0, got {name}")
    return match["source"], int(match["x"]), int(match["y"])


@dataclass(frozen=True, kw_only=True)
class WholeRecord:
    """An image that was cut, with its ground truth.

    Attributes:
        name: stem of the image file.
        height, width: pixels.
        size, overlap: of its tiles, as `tile_windows` takes them.
        settings: what else decided which tiles there are and what they hold.
        names, boxes, difficult: of each object; boxes x1 y1 x2 y2 in pixels, 0-based.
    """

    name: str
    height: int
    width: int
    size: int
    overlap: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    difficult: tuple[bool, ...] = ()

    def windows(self) -> list[Window]:
        """The tiles that the image was cut into."""
        return tile_windows(self.height, self.width, self.size, self.overlap)

    def to_json(self) -> str:
        """The record as a file holds it."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def read(cls, path: Path) -> WholeRecord:
        """The record in a file. Raises DataError with what is wrong (without the path)."""
        try:
            content = read_json(path)
            content["names"] = tuple(map(str, content["names"]))
            content["boxes"] = tuple(tuple(map(float, box)) for box in content["boxes"])
            content["difficult"] = tuple(map(bool, content["difficult"]))
            record = cls(**content)
            _require_geometry(record)
        except FileNotFoundError:
            raise DataError("the file is not there") from None
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"is not what the converter writes ({error!r})") from None
        if {len(box) for box in record.boxes} - {4} or not (
            len(record.names) == len(record.boxes) == len(record.difficult)
        ):
            raise DataError("does not hold a name, a box and a difficulty for each object")
        return record


def _require_geometry(record: WholeRecord) -> None:
    """Raise ValueError unless a record's numbers are an image's and its tiles'."""
    sides = (record.height, record.width, record.size, record.overlap)
    if not isinstance(record.name, str) or any(type(side) is not int for side in sides):
        raise ValueError("a name and whole numbers are expected")
    if min(sides[:3]) < 1 or not 0 <= record.overlap < record.size:
        raise ValueError("sides above 0, and an overlap below the size of a tile, are expected")
    step = record.size - record.overlap
    if math.ceil(record.height / step) * math.ceil(record.width / step) > _MAX_TILES:
        raise ValueError(f"more than {_MAX_TILES:,} tiles")


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeImage:
    """An image that was cut, as evaluation takes it: see `yolox.evaluators.EvalSample`.

    Attributes:
        image_id: unique among the whole images, not among the tiles.
        name: stem of the image file.
        height, width: pixels.
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the whole image.
        classes: int64 (n,).
        difficult: bool (n,).
        tiles: (x, y) of each tile's top left pixel, by the tile's image_id in the data set.
    """

    image_id: int
    name: str
    height: int
    width: int
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]
    tiles: Mapping[int, tuple[int, int]]


def whole_images(samples: Sequence[Sample], class_names: Sequence[str]) -> list[WholeImage]:
    """The images that the tiles of a data set were cut from, in the order of their first tile.

    Args:
        samples: the tiles, in ``VOC<year>/JPEGImages`` with the records in ``VOC<year>/Whole``.
        class_names: of the data set.

    Raises:
        DataError: listing all samples that are no tiles, images without a usable record, images of
            which a tile is missing, or objects of other classes.
    """
    tiles: dict[Path, dict[int, tuple[int, int]]] = {}
    strangers = []
    for sample in samples:
        try:
            source, x, y = parse_tile_name(sample.name)
        except ValueError:
            strangers.append(sample.name)
            continue
        record = sample.path.parent.parent / WHOLE_FOLDER / f"{source}.json"
        tiles.setdefault(record, {})[sample.image_id] = (x, y)
    if strangers:
        raise DataError(
            f"{len(strangers)} of {len(samples)} images are no tiles by their name (expected as "
            f"P0706__1__824___0), so there are no whole images to evaluate on: evaluate as they "
            f"are, or convert the data with `yolox.data.convert`:{bullets(strangers)}"
        )
    records: dict[Path, WholeRecord] = {}
    unusable = []
    for path in tiles:
        try:
            records[path] = WholeRecord.read(path)
        except DataError as error:
            unusable.append(f"{path}: {error}")
    if unusable:
        raise DataError(
            f"{len(unusable)} records of whole images cannot be used; convert their images again:"
            f"{bullets(unusable)}"
        )
    _check_complete(tiles, records)
    _check_classes(records, class_names)
    index = {name: i for i, name in enumerate(class_names)}
    return [
        WholeImage(
            image_id=image_id,
            name=record.name,
            height=record.height,
            width=record.width,
            boxes=np.array(record.boxes, dtype=np.float32).reshape(-1, 4),
            classes=np.array([index[name] for name in record.names], dtype=np.int64),
            difficult=np.array(record.difficult, dtype=np.bool_),
            tiles=tiles[path],
        )
        for image_id, (path, record) in enumerate(records.items())
    ]


def _check_complete(
    tiles: Mapping[Path, Mapping[int, tuple[int, int]]], records: Mapping[Path, WholeRecord]
) -> None:
    """False alarms on a tile that is not there would go unpunished, objects there be misses."""
    problems = []
    for path, record in records.items():
        wanted, there = {window[:2] for window in record.windows()}, set(tiles[path].values())
        if wanted != there:
            problems.append(
                f"{record.name}: {len(there & wanted)} of {len(wanted)} tiles of {record.size} with"
                f" overlap {record.overlap}"
                + (f", and {len(there - wanted)} others" if there - wanted else "")
            )
    if problems:
        raise DataError(
            f"{len(problems)} whole images are not covered by the tiles of the split. Evaluation "
            f"on whole images needs every tile, also those without objects: convert the split with "
            f"`yolox.data.convert`, keep_empty 1, into a new folder:{bullets(problems)}"
        )


def _check_classes(records: Mapping[Path, WholeRecord], class_names: Sequence[str]) -> None:
    unknown = [
        f"{record.name}: {', '.join(sorted(other))}"
        for record in records.values()
        if (other := set(record.names) - set(class_names))
    ]
    if unknown:
        raise DataError(
            f"{len(unknown)} whole images hold objects of classes that are not in the class list "
            f"[{', '.join(class_names)}]; add them, or convert the images again without them:"
            f"{bullets(unknown)}"
        )
