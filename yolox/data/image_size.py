"""Height and width of an image file from its header, without decoding its pixels.

Annotation files are often wrong about the size of their image, and every box is scaled by it, so
readers ask the image itself. Orientation stored in a JPEG's EXIF block counts, since OpenCV turns
the pixels by it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_ORIENTATION_TAG = 0x0112


def read_image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels as OpenCV would decode the file, or None if it is no image."""
    size = None
    try:
        with path.open("rb") as file:
            head = file.read(26)
            if head[:2] == b"\xff\xd8":
                file.seek(2)
                size = _jpeg_size(file)
            elif head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR":
                width, height = struct.unpack(">II", head[16:24])
                size = (height, width)
            elif head[:2] == b"BM" and len(head) == 26:
                width, height = struct.unpack("<ii", head[18:26])
                size = (abs(height), width)
    except (OSError, struct.error):
        return None
    if size is not None and min(size) > 0:
        return size
    return _decoded_size(path)


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    turned = False
    while True:
        byte = file.read(1)
        if not byte:
            return None
        if byte != b"\xff":
            continue
        while byte == b"\xff":  # fill bytes may come before a marker
            byte = file.read(1)
        if not byte or byte[0] == _START_OF_SCAN:
            return None
        if byte[0] in _BARE_MARKERS or byte[0] == 0:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if byte[0] in _SOF_MARKERS:
            height, width = struct.unpack(">xHH", file.read(5))
            return (width, height) if turned else (height, width)
        if byte[0] == _APP1:
            turned = turned or _exif_swaps_sides(file.read(length - 2))
        else:
            file.seek(length - 2, 1)


def _exif_swaps_sides(block: bytes) -> bool:
    """Whether an APP1 block holds an orientation (5..8) that turns the picture by 90 degrees."""
    if block[:6] != b"Exif\0\0" or block[6:8] not in (b"II", b"MM"):
        return False
    tiff, order = block[6:], "<" if block[6:8] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * i)
            if tag == _ORIENTATION_TAG:
                return bool(5 <= value <= 8)
    except struct.error:
        return False
    return False


def _decoded_size(path: Path) -> tuple[int, int] | None:
    data = np.fromfile(path, dtype=np.uint8)
    img = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if img is None else (int(img.shape[0]), int(img.shape[1]))
