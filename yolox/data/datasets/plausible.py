"""Boxes of a split that make better sense read otherwise: other units, other meanings of the four.

A single box can be odd; what is judged here is a whole split, and only what its own layout does not
explain. Shape suffixes: N objects of one split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from yolox.data.datasets.records import Form, Remark, remark

Floats = npt.NDArray[np.float64]

_MAX_OVERSHOOT = 0.02  # of the image's side: no rounding takes a box that far over the edge
_MAX_BY_CHANCE = 20  # objects that can be in the top left corner of their images by chance
_PERCENT = 100.0
_LARGE_SIDE = 200.0  # pixels: sides at which pixels are no percent
_FORMS: dict[Form, str] = {
    "xyxy": "x1 y1 x2 y2",
    "xywh": "x y width height",
    "cxcywh": "centre x, centre y, width, height",
}


def box_remarks(
    boxes_N4: Floats, limits_N4: Floats, form: Form, first_pixel: int = 0
) -> list[Remark]:
    """What the boxes of a split look like, if not what they were read as.

    Args:
        boxes_N4: x1 y1 x2 y2 in pixels, 0-based, not clipped.
        limits_N4: width, height, width, height of each object's image; NaN where not known.
        form: what the labels were read as; see `RecordSet`.
        first_pixel: the number that the labels give the first pixel; see `RecordSet`.
    """
    known = ~np.isnan(limits_N4).any(axis=1) & ~np.isnan(boxes_N4).any(axis=1)
    boxes, limits = boxes_N4[known], limits_N4[known]
    if not len(boxes):
        return []
    return [*_corners(boxes, limits, form), *_units(boxes + first_pixel, limits)]


def _corners(boxes: Floats, limits: Floats, form: Form) -> list[Remark]:
    """Four numbers that are two corners: so read, all boxes are inside, otherwise some are not."""
    if form == "xyxy":
        return []
    low, high = boxes[:, :2], boxes[:, 2:]
    start = low if form == "xywh" else (low + high) / 2
    raw = np.concatenate([start, high - low], axis=1)
    beyond = (np.maximum(-boxes, boxes - limits) > _MAX_OVERSHOOT * limits).any(axis=1)
    ordered = (raw[:, 2:] > raw[:, :2]).all() and (raw <= limits * (1 + 1e-6)).all()
    if not beyond.any() or not ordered or (raw < 0).any():
        return []
    return remark(
        "warning",
        f"boxes whose four numbers seem to be two corners, {_FORMS['xyxy']}",
        [
            f"as {_FORMS[form]}, {beyond.sum():,} of {len(boxes):,} boxes leave their image; as "
            "corners all of them are inside"
        ],
        f"They are read as {_FORMS[form]}, as this layout has it: if they are corners, convert "
        "them.",
    )


def _units(boxes: Floats, limits: Floats) -> list[Remark]:
    """Pixels that are fractions or percent: all objects of all images in the top left corner."""
    most = boxes.max()
    if boxes.min() < 0:
        return []
    if most <= 1:
        unit = "fractions of the image, 0 to 1"
    elif most <= _PERCENT and len(boxes) >= _MAX_BY_CHANCE and limits.min() >= _LARGE_SIDE:
        unit = "percent of the image, 0 to 100"
    else:
        return []
    return remark(
        "warning",
        f"boxes that seem to be in {unit}",
        [f"none of {len(boxes):,} boxes reaches beyond {most:g} pixels"],
        "They are read as pixels, as this layout has it: multiply them by the width and height of "
        "their image.",
    )
