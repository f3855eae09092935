"""Images with their boxes, small enough to be sent within a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from yolox.report.data import Mark, Picture
from yolox.utils.visualize import vis

__all__ = ["draw_picture"]

MAX_SIDE = 480  # pixels: a third of a page, or a phone's width
_JPEG_QUALITY = 78


def draw_picture(
    label: str,
    image: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32] | None,
    classes: npt.NDArray[np.int64],
    class_names: Sequence[str],
    marked: Sequence[int] = (),
) -> Picture:
    """An image with boxes as a JPEG of at most 480 pixels a side.

    Args:
        label: what it shows.
        image: uint8 (H, W, 3), BGR.
        boxes: (n, 4), xyxy in pixels of ``image``.
        scores: (n,), in [0, 1]; None for annotations.
        classes: (n,), class indices.
        class_names: by class index.
        marked: rows of the boxes that stand out.
    """
    height, width = image.shape[:2]
    ratio = min(MAX_SIDE / max(height, width), 1.0)
    if ratio < 1:
        size = max(round(width * ratio), 1), max(round(height * ratio), 1)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    drawn = vis(image, boxes * ratio, scores, classes, conf=0.0, class_names=class_names)
    marks = tuple(
        Mark(
            box=(float(x1), float(y1), float(x2), float(y2)),
            name=class_names[classes[row]] + ("" if scores is None else f" {scores[row]:.2f}"),
        )
        for row in marked
        for x1, y1, x2, y2 in [boxes[row] * ratio]
    )
    _, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return Picture(
        label=label,
        uri="data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii"),
        width=drawn.shape[1],
        height=drawn.shape[0],
        found=len(boxes),
        marks=marks,
    )
