"""One image cut into tiles: which objects a tile shows, and the files that say so."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.convert.polygons import Corners, bounds, clip_polygon, polygon_area
from yolox.data.datasets.voc_xml import VocObject, annotation_xml
from yolox.data.decoding import decode, read_bytes
from yolox.data.errors import DataError
from yolox.data.image_header import ImageError
from yolox.data.tiles import WHOLE_FOLDER, WholeRecord, Window, tile_name
from yolox.utils.files import replacing

__all__ = ["CutJob", "CutResult", "Shape", "TileSettings", "cut", "visible"]

_WELL_VISIBLE = 0.7  # of an object's area; what DOTA's own tools ask of an ordinary object


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How images are cut.

    Attributes:
        size, overlap: of the tiles, pixels.
        min_area: least fraction of an object's area that a tile must show. Less is left out, for
            a sliver cannot be told from background. Between this and 0.7 the object is marked
            difficult: it is trained on, since what can be seen is not background, but how far its
            box reaches is a matter of taste, so evaluation on tiles does not count it.
        keep_empty: fraction of the tiles without objects to keep, chosen by their names.
        difficult: ``drop`` leaves out the objects that DOTA marks difficult; whole images keep
            them either way, where they count neither for nor against a detector.

    Raises:
        DataError: a value out of range.
    """

    size: int = 1024
    overlap: int = 200
    min_area: float = 0.4
    keep_empty: float = 1.0
    difficult: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise DataError(
                f"overlap: expected 0 to {self.size - 1} for tiles of {self.size}, got "
                f"{self.overlap}"
            )
        for name in ("min_area", "keep_empty"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name}: expected a fraction, got {getattr(self, name)}")
        if self.difficult not in ("keep", "drop"):
            raise DataError(f"difficult: expected keep or drop, got {self.difficult!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """An object as far as it lies in its image: outline, convex, corners in order."""

    name: str
    outline: Corners
    difficult: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class CutJob:
    """An image to cut; a worker needs nothing else."""

    image: Path
    folder: Path
    shapes: tuple[Shape, ...]
    record: WholeRecord
    settings: TileSettings

    @property
    def record_path(self) -> Path:
        """JSON file that says how the image was cut, written once all its tiles are there."""
        return self.folder / WHOLE_FOLDER / f"{self.record.name}.json"


@dataclass(frozen=True, kw_only=True)
class CutResult:
    """What became of an image.

    Attributes:
        tiles: names of those written.
        objects: in the tiles.
        difficult: of these, the ones marked so.
        problem: why the image could not be cut, None where it was.
    """

    tiles: tuple[str, ...] = ()
    objects: int = 0
    difficult: int = 0
    problem: str | None = None


def cut(job: CutJob) -> CutResult:
    """Cut one image, unless that was done; the names of its tiles, or why it cannot be cut."""
    tiles = []
    for window in job.record.windows():
        name = tile_name(job.record.name, *window[:2])
        objects = visible(job.shapes, window, job.settings)
        if objects or _kept(name, job.settings.keep_empty):
            tiles.append((name, window, objects))
    if not job.record_path.exists():
        try:
            size = (job.record.height, job.record.width)
            img = decode(job.image, read_bytes(job.image), 1, size)
        except ImageError as error:
            return CutResult(problem=f"{job.image}: {error.what}")
        for name, window, objects in tiles:
            _write_tile(job.folder, name, window, objects, img)
        with replacing(job.record_path, DataError) as temporary:
            temporary.write_text(job.record.to_json(), encoding="utf-8")
    return CutResult(
        tiles=tuple(name for name, _, _ in tiles),
        objects=sum(len(objects) for _, _, objects in tiles),
        difficult=sum(entry.difficult for _, _, objects in tiles for entry in objects),
    )


def _kept(name: str, fraction: float) -> bool:
    """Whether an empty tile stays: by its name, so the same in every run and for any workers."""
    return zlib.crc32(name.encode()) < fraction * 2**32


def visible(shapes: Sequence[Shape], window: Window, settings: TileSettings) -> list[VocObject]:
    """The objects of a tile; see `TileSettings`."""
    objects = []
    for shape in shapes:
        x1, y1, x2, y2 = bounds(shape.outline)
        apart = x2 <= window[0] or y2 <= window[1] or x1 >= window[2] or y1 >= window[3]
        if apart or (shape.difficult and settings.difficult == "drop"):
            continue
        part = clip_polygon(shape.outline, window)
        fraction = polygon_area(part) / polygon_area(shape.outline)
        if fraction == 0 or fraction < settings.min_area:
            continue
        left, top, right, bottom = bounds(part)
        entry = VocObject(
            name=shape.name,
            box=(left - window[0], top - window[1], right - window[0], bottom - window[1]),
            truncated=part is not shape.outline,
            difficult=shape.difficult or fraction < _WELL_VISIBLE,
        )
        objects.append(entry)
    return objects


def _write_tile(
    folder: Path,
    name: str,
    window: Window,
    objects: Sequence[VocObject],
    img: npt.NDArray[np.uint8],
) -> None:
    x1, y1, x2, y2 = window
    encoded = cv2.imencode(".png", img[y1:y2, x1:x2])[1]
    with replacing(folder / "JPEGImages" / f"{name}.png", DataError) as temporary:
        temporary.write_bytes(encoded.tobytes())
    with replacing(folder / "Annotations" / f"{name}.xml", DataError) as temporary:
        temporary.write_bytes(annotation_xml(f"{name}.png", (y2 - y1, x2 - x1), objects))
