"""Image files to pixels, at their size or straight to a smaller one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.errors import DataError

Image = npt.NDArray[np.uint8]

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
FACTORS = tuple(_FLAGS)
# A JPEG decoded small is low-pass filtered, a bilinear warp that shrinks is not: up to this much
# enlargement of the small one loses less than the other way aliases, and reads far less.
_MAX_ENLARGEMENT = 1.25


def decode_factor(scale: float) -> int:
    """By how much (1, 2, 4, 8) an image may be decoded smaller when it is shown at ``scale``."""
    return next((factor for factor in (8, 4, 2) if scale * factor <= _MAX_ENLARGEMENT), 1)


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as it is, uint8 (bytes,). Raises DataError if it cannot be read."""
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"image {path} cannot be read ({error.strerror}): is it there?") from None


def read_image(path: Path) -> Image:
    """The image in a file, BGR uint8 (height, width, 3). Raises DataError if it cannot be read."""
    return decode(path, read_bytes(path), 1)


def decode(path: Path, data: npt.NDArray[np.uint8], factor: int) -> Image:
    """The image in the bytes of a file, BGR uint8 (height, width, 3), at 1 / ``factor``.

    Raises DataError, which names ``path``, if it cannot be decoded.
    """
    try:
        img: Image | None = cv2.imdecode(data, _FLAGS[factor]) if data.size else None
    except cv2.error:  # more pixels than OpenCV takes, or none left of a reduced side
        img = None
    if img is None:
        raise DataError(
            f"image {path} cannot be decoded ({data.size} bytes): replace the file, or take "
            f"its name out of the split"
        )
    return img
