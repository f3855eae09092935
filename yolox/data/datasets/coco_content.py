"""The lists of a COCO file as arrays, read element by element: outlines never pile up.

What is written as usual goes into the arrays at once; everything else is looked at in
`coco_entries`, which also says what is wrong with it.

Shape suffixes: I images; N objects, in the order of the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from yolox.data.datasets.coco_entries import image_fault, image_size, object_fault, read_object
from yolox.data.datasets.tables import Strings
from yolox.data.datasets.values import as_whole
from yolox.utils.cache_folder import cache_folder, locked
from yolox.utils.documents import MAX_DATA_BYTES, MEGABYTE, open_bounded
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.json_stream import NotStreamedError, stream_lists
from yolox.utils.progress import track

Column = Any  # `array.array` while it grows; of the cache, an array of NumPy's

LISTS = ("images", "annotations", "categories")
LARGE_FILE = 32 * MEGABYTE  # of a file that takes seconds to read
_VERSION = 1  # of what the cache holds
_ARRAYS = (
    *("ids", "sizes", "image_at"),
    *("object_ids", "object_categories", "boxes", "ignored", "object_at"),
)
_NUMBERS = frozenset({int, float})
_FLAGS = frozenset({int, bool, type(None)})
_MOST = 1 << 62  # of whole numbers that are taken as they are


@dataclass
class CocoContent:
    """What a COCO file says.

    Attributes:
        categories: the entries of that list.
        image_entries: how many entries of images there are.
        ids, names, sizes: of the usable ones; sizes are (height, width), 0 where they are not said.
        image_at: index of each one's entry.
        known: all ids of images, also of entries that cannot be used.
        image_faults: index of an entry, and what is wrong with it.
        object_ids, object_categories, boxes, ignored: of the usable annotations; boxes x1 y1 x2 y2.
        object_at: index of each one's entry.
        outlined: indices of those whose box is that of their outline.
        odd: annotations that cannot be used, by index.
    """

    categories: list[Any] = field(default_factory=list)
    image_entries: int = 0
    ids: Column = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    sizes: Column = field(default_factory=lambda: array("q"))
    image_at: Column = field(default_factory=lambda: array("q"))
    known: set[int] = field(default_factory=set)
    image_faults: list[tuple[int, str]] = field(default_factory=list)
    object_ids: Column = field(default_factory=lambda: array("q"))
    object_categories: Column = field(default_factory=lambda: array("q"))
    boxes: Column = field(default_factory=lambda: array("d"))
    ignored: Column = field(default_factory=lambda: array("b"))
    object_at: Column = field(default_factory=lambda: array("q"))
    outlined: list[int] = field(default_factory=list)
    odd: dict[int, Any] = field(default_factory=dict)

    def add(self, key: str, entries: Iterable[Any]) -> None:
        """Take the entries of one of `LISTS`."""
        if key == "images":
            self._add_images(entries)
        elif key == "annotations":
            self._add_objects(entries)
        else:
            self.categories = list(entries)

    def columns(self) -> dict[str, Any]:
        """All that is usable, as tensors and plain values."""
        names = Strings.of(self.names)
        tensors = {name: torch.from_numpy(np.array(getattr(self, name))) for name in _ARRAYS}
        text = {"text": torch.from_numpy(names.text), "ends": torch.from_numpy(names.ends)}
        plain = {"categories": json.dumps(self.categories), "outlined": list(self.outlined)}
        return {**tensors, **text, **plain, "image_entries": self.image_entries}

    @classmethod
    def of(cls, columns: dict[str, Any]) -> CocoContent:
        """From `columns`."""
        arrays = {name: columns[name].numpy() for name in _ARRAYS}
        return cls(
            categories=json.loads(columns["categories"]),
            image_entries=columns["image_entries"],
            names=list(Strings(columns["text"].numpy(), columns["ends"].numpy())),
            known=set(arrays["ids"].tolist()),
            outlined=columns["outlined"],
            **arrays,
        )

    def _add_images(self, entries: Iterable[Any]) -> None:
        for i, entry in enumerate(entries):
            self.image_entries += 1
            number = as_whole(entry.get("id")) if isinstance(entry, dict) else None
            what = image_fault(entry, number, self.known)
            if what is not None:
                self.image_faults.append((i, what))
            elif number is not None:
                self.ids.append(number)
                self.names.append(entry["file_name"])
                self.sizes.extend(image_size(entry) or (0, 0))
                self.image_at.append(i)
            if number is not None:
                self.known.add(number)

    def _add_objects(self, entries: Iterable[Any]) -> None:
        for i, entry in enumerate(entries):
            found = _usual(entry) or read_object(entry)
            if found is None:
                self.odd[i] = _without_outline(entry)
                continue
            number, category, box, ignored, outlined = found
            self.object_ids.append(number)
            self.object_categories.append(category)
            self.boxes.extend(box)
            self.ignored.append(ignored)
            self.object_at.append(i)
            if outlined:
                self.outlined.append(i)

    def faults(
        self, categories: Iterable[int]
    ) -> tuple[npt.NDArray[np.bool_], list[tuple[int, str]]]:
        """Which objects can be used, bool (N,), and what is wrong with which annotations."""
        numbers, kinds = np.asarray(self.object_ids), np.asarray(self.object_categories)
        known = np.fromiter(self.known, np.int64, len(self.known))
        listed = set(categories)
        kinds_known = np.fromiter(listed, np.int64, len(listed))
        usable = np.isin(numbers, known) & np.isin(kinds, kinds_known)
        for place in np.flatnonzero(~usable).tolist():
            row = {"image_id": int(numbers[place]), "category_id": int(kinds[place])}
            self.odd[self.object_at[place]] = {**row, "bbox": [0, 0, 0, 0]}
        faults = [(i, object_fault(entry, self.known, listed)) for i, entry in self.odd.items()]
        return usable, sorted(faults)


def _usual(entry: Any) -> tuple[int, int, tuple[float, float, float, float], bool, bool] | None:
    """What an annotation says if it is written as COCO does; else None, and `read_object` looks."""
    if type(entry) is not dict:
        return None
    number, category, box = entry.get("image_id"), entry.get("category_id"), entry.get("bbox")
    crowd, ignore = entry.get("iscrowd"), entry.get("ignore")
    if type(number) is not int or type(category) is not int or type(box) is not list:
        return None
    if len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        return None
    if type(crowd) not in _FLAGS or type(ignore) not in _FLAGS:
        return None
    if crowd not in (0, 1, None) or ignore not in (0, 1, None):
        return None
    if not -_MOST < number < _MOST or not -_MOST < category < _MOST:
        return None
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return None
    if not math.isfinite(x + y + width + height):
        return None
    return number, category, (x, y, x + width, y + height), bool(crowd or ignore), False


def _without_outline(entry: Any) -> Any:
    if isinstance(entry, dict) and "segmentation" in entry:
        return {**entry, "segmentation": bool(entry["segmentation"])}
    return entry


def read_content(path: Path) -> CocoContent:
    """What a file says, read once and never whole; a large file once for all processes and runs.

    What was read of a large file stays in the user's cache folder, mapped into memory, until the
    file is another one.

    Raises:
        NotStreamedError: it has to be read whole, or is no COCO file.
        DocumentError, OSError: as `read_data_json`.
    """
    status = path.stat()
    if status.st_size < LARGE_FILE:
        return stream_content(path)
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    place = cache_folder() / "annotations" / f"{name}.pt"
    stamp = [_VERSION, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(place.with_suffix(".lock")))
        except OSError:
            return stream_content(path)
        if (content := _cached(place, stamp)) is not None:
            logger.info(f"annotations of {path.name} are those read before, in {place}")
            return content
        content = stream_content(path)
        if not content.odd and not content.image_faults:
            with suppress(UserError), replacing(place) as temporary:
                torch.save({"stamp": stamp, **content.columns()}, temporary)
        return content


def _cached(place: Path, stamp: list[int]) -> CocoContent | None:
    """What is in the cache, None where it is not there, of another file, or damaged."""
    if not place.is_file():
        return None
    try:
        found = torch.load(place, mmap=True, weights_only=True)
        return CocoContent.of(found) if found.pop("stamp") == stamp else None
    except Exception:  # the reader trips over damaged bytes in every way there is
        return None


def stream_content(path: Path) -> CocoContent:
    """What a file says that detection needs, read piece by piece."""
    content = CocoContent()
    found = set()
    with open_bounded(path, MAX_DATA_BYTES) as file:
        size = path.stat().st_size
        if size >= LARGE_FILE:
            logger.info(f"reading annotations of {path.name} ({size / MEGABYTE:.0f} MB)")
        chunks: Iterator[bytes] = iter(lambda: file.read(MEGABYTE), b"")
        parts = track(chunks, "Reading annotations, MB", -(-size // MEGABYTE))
        for key, elements in stream_lists(parts, set(LISTS)):
            content.add(key, elements)
            found.add(key)
    if not {"images", "categories"} <= found:
        raise NotStreamedError
    return content
