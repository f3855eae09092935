"""The box around an object that is given by its outline: polygons, and masks in run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolox.data.datasets.values import as_number, as_whole

Box = tuple[float, float, float, float]

_BITS = 5  # of a number that a character of a compressed mask holds
_LAST = 0x20  # set in all but the last character of a number
_FIRST_CHARACTER = 48
_PIXELS = 2**31


def points_box(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """x1 y1 x2 y2 around points."""
    return min(xs), min(ys), max(xs), max(ys)


def segmentation_box(segmentation: Any) -> Box | None:
    """x1 y1 x2 y2 around COCO's "segmentation": polygons, or a mask. None if it is neither."""
    if isinstance(segmentation, dict):
        return _mask_box(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        numbers = [number for value in polygon if (number := as_number(value)) is not None]
        if len(numbers) < len(polygon):
            return None
        xs += numbers[::2]
        ys += numbers[1::2]
    return points_box(xs, ys)


def _mask_box(mask: Mapping[str, Any]) -> Box | None:
    """Around a mask's pixels: lengths of runs, column by column, of outside and inside in turn."""
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        return None
    height, width = map(as_whole, size)
    if not height or not width or not 0 < height * width < _PIXELS:
        return None
    runs = _uncompressed(counts) if isinstance(counts, str) else _whole_numbers(counts)
    if runs is None or min(runs, default=-1) < 0 or sum(runs) != height * width:
        return None
    ends = np.cumsum(np.array(runs, dtype=np.int64))
    starts, stops = ends[:-1:2], ends[1::2] - 1  # of the runs inside, last pixel included
    inside = stops >= starts[: len(stops)]
    starts, stops = starts[: len(stops)][inside], stops[inside]
    if not len(starts):
        return None
    first, last = starts // height, stops // height
    one_column = (first == last).all()  # else a run goes on at the top of the next one
    top = int((starts % height).min()) if one_column else 0
    bottom = int((stops % height).max()) + 1 if one_column else height
    return float(first.min()), float(top), float(last.max() + 1), float(bottom)


def _whole_numbers(values: Any) -> list[int] | None:
    if not isinstance(values, list):
        return None
    found = [number for value in values if (number := as_whole(value)) is not None]
    return found if len(found) == len(values) else None


def _uncompressed(text: str) -> list[int] | None:
    """The run lengths of a mask that is written as text: five bits a character, lowest first.

    From the third on, a number is the difference from the one two before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 2 * _LAST or shift > 64:
            return None
        number |= (bits & (_LAST - 1)) << shift
        shift += _BITS
        if bits & _LAST:
            continue
        if bits & (_LAST >> 1):
            number -= 1 << shift  # the highest bit is the sign
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs if not shift else None
