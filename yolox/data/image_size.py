"""Height and width of an image file, without decoding its pixels where the header tells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yolox.data.datasets.decoding import read_image
from yolox.data.image_header import (
    JPEG,
    JPEG_END,
    PNG,
    PNG_END,
    TAIL_BYTES,
    ImageError,
    is_complete,
    read_header,
    require_regular,
)

__all__ = ["FileHeader", "read_file_header", "read_image_size"]


@dataclass(frozen=True, kw_only=True)
class FileHeader:
    """What can be told of an image file before it is decoded.

    Attributes:
        size: (height, width) in pixels as it is decoded everywhere: turned by its orientation.
        cut_off: a JPEG whose end is missing; it is decoded as far as it goes, as no other format.
        deep: values of more than 8 bits.
    """

    size: tuple[int, int]
    cut_off: bool = False
    deep: bool = False


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as the file is decoded.

    Raises ImageError if the file is not there, cannot be decoded, or has too many pixels.
    """
    return read_file_header(path).size


def read_file_header(path: Path) -> FileHeader:
    """What an image file says of itself; raises as `read_image_size`."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            header = read_header(path, file, length)
            has_end = header is None or _has_end(file, length, header.kind)
    except OSError as error:
        raise ImageError.about(path, f"cannot be read ({error.strerror})", "is it there?") from None
    if header is not None and (has_end or header.kind == JPEG):
        return FileHeader(size=header.size, cut_off=not has_end, deep=header.deep)
    height, width = read_image(path).shape[:2]
    return FileHeader(size=(height, width))


def _has_end(file: BinaryIO, length: int, kind: str | None) -> bool:
    """Whether an image file has its end mark, if its format has one; read whole only in doubt."""
    if kind not in (JPEG, PNG):
        return True
    file.seek(max(0, length - TAIL_BYTES))
    tail = file.read()
    if tail.endswith(JPEG_END) if kind == JPEG else PNG_END in tail:
        return True
    file.seek(0)
    return is_complete(file.read())
