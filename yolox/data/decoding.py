"""Image files to pixels, at their size or straight to a smaller one.

Every picture of the project is decoded here, so that training, evaluation, the cache, tiles, sheets
and detection see the same pixels, of the size that `image_header` tells.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.image_header import (
    EXIF_MARK,
    HEAD_BYTES,
    JPEG,
    JPEG_END,
    PNG,
    PNG_DEPTH_OFFSET,
    Header,
    ImageError,
    check_pixels,
    format_of,
    read_header,
    require_regular,
)

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]

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
_OF_8_BITS = (JPEG, "BMP", "WebP", "GIF")
DARK_BITS = 14  # of 16: at most a quarter of the range is used
# EXIF's orientations, as a transposition and a flip of OpenCV that follows it
_TURNS: dict[int, tuple[bool, int | None]] = {
    1: (False, None),
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}


class WrongSize(ImageError):  # noqa: N818 - what it says is the error
    """An image whose pixels are not of the size that was recorded, or that its header tells."""


def decode_factor(scale: float) -> int:
    """By how much (1, 2, 4, 8) an image may be decoded smaller when it is shown at ``scale``."""
    return next((factor for factor in (8, 4, 2) if scale * factor <= _MAX_ENLARGEMENT), 1)


def reduced_size(size: Size, factor: int) -> Size:
    """(height, width) of an image at 1 / ``factor``: rounded up."""
    return -(-size[0] // factor), -(-size[1] // factor)


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as it is, uint8 (bytes,). Raises ImageError if it cannot be read."""
    try:
        require_regular(path)
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError.about(path, f"cannot be read ({error.strerror})", "is it there?") from None


def read_image(path: Path) -> Image:
    """The image in a file, BGR uint8 (height, width, 3), turned by its EXIF orientation.

    Raises ImageError if it cannot be read or decoded, or has too many pixels.
    """
    return decode(path, read_bytes(path), 1)


def decode(path: Path, data: npt.NDArray[np.uint8], factor: int, size: Size | None = None) -> Image:
    """The image in the bytes of a file, BGR uint8 (height, width, 3), at 1 / ``factor``.

    A JPEG is decoded straight to the smaller size; others are decoded whole, and averaged. A JPEG
    that is cut off is decoded as far as it goes, and is grey below.

    Args:
        path: of the file, for messages.
        data: its bytes.
        factor: 1, 2, 4 or 8; sides are rounded up.
        size: (height, width) in pixels of the whole image, as it was recorded; None if it was not.

    Raises ImageError if the image cannot be decoded, has too many pixels, or another size.
    """
    raw = data.tobytes()
    jpeg = format_of(raw[:HEAD_BYTES]) == JPEG
    if jpeg and size is not None and EXIF_MARK not in raw:
        header: Header | None = Header(size=size)  # nothing else to learn, and time counts
    else:
        header = read_header(path, io.BytesIO(raw), len(raw))
    if jpeg and not raw.endswith(JPEG_END):
        data = np.frombuffer(raw + JPEG_END, dtype=np.uint8)  # else OpenCV may refuse all of it
    flags = _FLAGS[factor if jpeg else 1]
    if header is not None:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        img: Image | None = cv2.imdecode(data, flags) if raw else None
    except cv2.error:  # more pixels than OpenCV or the memory takes
        img = None
    if img is None:
        said = header is not None and header.kind is not None  # by the file, not by the caller
        claim = f", {_text(header.size)} (height × width)" if header and said else ""
        raise ImageError.about(path, f"cannot be decoded ({len(raw)} bytes{claim})")
    if header is None:
        check_pixels(path, img.shape[:2], len(raw))
    else:
        img = _turn(img, header.orientation)
    shown = (int(img.shape[0]), int(img.shape[1]))
    header = header or Header(size=shown)
    reduced = factor if jpeg else 1
    for expected in (header.size, size or header.size):
        if shown != reduced_size(expected, reduced):
            raise _wrong_size(path, raw, shown, reduced, size)
    return _shrink(img, factor) if factor > reduced else img


def bits_used(data: npt.NDArray[np.uint8]) -> int | None:
    """Of a 16-bit image's bits those that its largest value needs; None for others.

    Args:
        data: bytes of an image file; None for those that cannot be decoded, too.
    """
    head = data[: PNG_DEPTH_OFFSET + 1].tobytes()
    kind = format_of(head)
    if kind in _OF_8_BITS or (kind == PNG and head[PNG_DEPTH_OFFSET:] != b"\x10"):
        return None
    try:
        img = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # a depth that OpenCV has no pixels for; decoding tells
        return None
    return int(img.max()).bit_length() if img is not None and img.dtype == np.uint16 else None


def _turn(img: Image, orientation: int) -> Image:
    transposed, flip = _TURNS[orientation]
    if transposed:
        img = cv2.transpose(img)
    return img if flip is None else cv2.flip(img, flip)


def _shrink(img: Image, factor: int) -> Image:
    """The mean of each block of factor × factor pixels, as a JPEG decoded small has them."""
    bottom, right = (-side % factor for side in img.shape[:2])
    if bottom or right:
        img = cv2.copyMakeBorder(img, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    size = (img.shape[1] // factor, img.shape[0] // factor)
    out: Image = cv2.resize(img, size, interpolation=cv2.INTER_AREA)
    return out


def _wrong_size(path: Path, raw: bytes, shown: Size, factor: int, size: Size | None) -> ImageError:
    header = read_header(path, io.BytesIO(raw), len(raw))
    said = [f"{_text(size)} when its size was recorded"] if size else []
    said += [f"{_text(header.size)} by its header"] if header else []
    small = f" at 1/{factor}" if factor > 1 else ""
    return WrongSize.about(
        path,
        f"is {_text(shown)} (height × width) as decoded{small}, but {', and '.join(said)}",
        "if it was replaced meanwhile, start again; if not, save it again with a program that "
        "shows it right",
    )


def _text(size: Size) -> str:
    return f"{size[0]} × {size[1]}"
