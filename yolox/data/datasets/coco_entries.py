"""What the lists of a COCO file hold: categories, images, and the objects of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolox.data.datasets.build import class_list_fault
from yolox.data.datasets.outlines import Box, segmentation_box
from yolox.data.datasets.records import BAD_ANNOTATION, BAD_CLASS_LIST, BAD_ENTRY, Problem
from yolox.data.datasets.values import as_flag, as_number, as_whole


@dataclass(kw_only=True)
class CocoImage:
    """One entry of "images", and its objects as they are found."""

    where: str
    name: str
    size: tuple[int, int] | None
    names: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)
    faulty: bool = False


def read_categories(entries: list[Any], path: Path) -> tuple[dict[int, str], list[Problem]]:
    """Names by category id, by rising id; and what is wrong with them."""
    found: dict[int, str] = {}
    faults: list[str] = []
    for i, entry in enumerate(entries):
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        number, name = as_whole(fields.get("id")), fields.get("name")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if number is None or not isinstance(name, str) or not name.strip():
            faults.append(f"categories[{i}]: expected a whole number as id, and a name")
        elif number in found:
            faults.append(f"categories[{i}]: the id {number} is taken by {found[number]!r}")
        else:
            found[number] = name.strip()
    found = dict(sorted(found.items()))
    fault = class_list_fault(list(found.values())) if not faults else None
    faults += [f"categories: {fault}"] if fault else []
    return found, [Problem(kind=BAD_CLASS_LIST, where=str(path), what=what) for what in faults]


def read_images(
    entries: list[Any], path: Path, problems: list[Problem]
) -> tuple[dict[int, CocoImage], set[int]]:
    """Images by id, in the order of the file; and all ids there are, of faulty entries, too."""
    images: dict[int, CocoImage] = {}
    known: set[int] = set()
    for i, entry in enumerate(entries):
        number = as_whole(entry.get("id")) if isinstance(entry, dict) else None
        what = _image_fault(entry, number, known)
        where = f"{path}: images[{i}]"
        if what is not None:
            problems.append(Problem(kind=BAD_ENTRY, where=where, what=what))
        elif number is not None:
            images[number] = CocoImage(where=where, name=entry["file_name"], size=_size(entry))
        if number is not None:
            known.add(number)
    return images, known


def _image_fault(entry: Any, number: int | None, known: set[int]) -> str | None:
    """What is wrong with an entry of "images", None if nothing is."""
    if not isinstance(entry, dict):
        return "is not an object"
    name = entry.get("file_name")
    if number is None:
        return f"id is {entry.get('id')!r}: expected a whole number"
    if number in known:
        return f"id {number} is that of another entry, too"
    if not isinstance(name, str) or not name.strip():
        return f"file_name is {name!r}: expected a path below the image folder"
    return None


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the entry says, None if it does not."""
    height, width = (as_number(entry.get(side)) for side in ("height", "width"))
    if height is None or width is None or height < 1 or width < 1:
        return None
    return int(height), int(width)


def add_objects(
    entries: list[Any],
    images: Mapping[int, CocoImage],
    known: set[int],
    categories: Mapping[int, str],
    path: Path,
    problems: list[Problem],
) -> list[str]:
    """Put each annotation to its image; an image with an unusable one is marked faulty.

    Returns which annotations have no bbox, so that their box is that of their outline.
    """
    outlined = []
    for i, entry in enumerate(entries):
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        number = as_whole(fields.get("image_id"))
        category = as_whole(fields.get("category_id"))
        bbox = fields.get("bbox")
        box = _box(bbox) if bbox not in (None, []) else segmentation_box(fields.get("segmentation"))
        crowd, ignore = as_flag(fields.get("iscrowd")), as_flag(fields.get("ignore"))
        flagged = crowd is not None and ignore is not None
        name = categories.get(category) if category is not None else None
        image = images.get(number) if number is not None else None
        if number not in known or name is None or box is None or not flagged:
            what = _object_fault(entry, known, categories)
            problems.append(
                Problem(kind=BAD_ANNOTATION, where=f"{path}: annotations[{i}]", what=what)
            )
            if image is not None:
                image.faulty = True
        elif image is not None:  # the entry of another image may be faulty itself
            image.names.append(name)
            image.boxes.append(box)
            image.ignored.append(bool(crowd or ignore))
            if bbox in (None, []):
                outlined.append(f"annotations[{i}] of {image.name}")
    return outlined


def _box(bbox: Any) -> Box | None:
    """x1 y1 x2 y2 of x, y, width, height; None unless these are four finite numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = map(as_number, bbox)
    if x is None or y is None or width is None or height is None:
        return None
    return x, y, x + width, y + height


def _object_fault(entry: Any, known: set[int], categories: Mapping[int, str]) -> str:
    """What is wrong with an annotation that cannot be used."""
    if not isinstance(entry, dict):
        return "is not an object"
    if as_whole(entry.get("image_id")) not in known:
        return f"image_id {entry.get('image_id')!r} is not among the images"
    if as_whole(entry.get("category_id")) not in categories:
        return f"category_id {entry.get('category_id')!r} is not among the categories"
    for key in ("iscrowd", "ignore"):
        if as_flag(entry.get(key)) is None:
            return f"{key} is {str(entry[key])[:80]!r}: expected 0 or 1"
    if entry.get("bbox") not in (None, []):
        return f"bbox is not four finite numbers, x, y, width, height: {str(entry['bbox'])[:80]}"
    if not entry.get("segmentation"):
        return "has no bbox"
    return "has no bbox, and a segmentation that is neither polygons nor a mask"
