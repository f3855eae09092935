"""What the lists of a COCO file hold: categories, images, and the objects of each image."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from yolox.data.datasets.build import class_list_fault
from yolox.data.datasets.outlines import Box, segmentation_box
from yolox.data.datasets.records import BAD_CLASS_LIST, Problem
from yolox.data.datasets.values import as_flag, as_number, as_whole

_MAX_SIDE = 2**31 - 1  # of an image, in the arrays of records


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


def image_fault(entry: Any, number: int | None, known: set[int]) -> str | None:
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


def image_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the entry says, None if it does not."""
    height, width = (as_number(entry.get(side)) for side in ("height", "width"))
    if height is None or width is None or height < 1 or width < 1:
        return None
    return min(int(height), _MAX_SIDE), min(int(width), _MAX_SIDE)


def read_object(entry: Any) -> tuple[int, int, Box, bool, bool] | None:
    """Image id, category id, box, whether it is ignored, and whether the box is its outline's.

    None for an annotation that cannot be used; `object_fault` says why. Whether there are such an
    image and category is not looked at.
    """
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    number = as_whole(fields.get("image_id"))
    category = as_whole(fields.get("category_id"))
    bbox = fields.get("bbox")
    outlined = bbox in (None, [])
    box = segmentation_box(fields.get("segmentation")) if outlined else _box(bbox)
    crowd, ignore = as_flag(fields.get("iscrowd")), as_flag(fields.get("ignore"))
    if number is None or category is None or box is None or crowd is None or ignore is None:
        return None
    return number, category, box, crowd or ignore, outlined


def _box(bbox: Any) -> Box | None:
    """x1 y1 x2 y2 of x, y, width, height; None unless these are four finite numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, width, height = map(as_number, bbox)
    if x is None or y is None or width is None or height is None:
        return None
    return x, y, x + width, y + height


def object_fault(entry: Any, known: Container[int], categories: Container[int]) -> str:
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
