"""Height and width of an image file, without decoding its pixels where the header tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from yolox.data.decoding import read_image
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
from yolox.utils.workers import in_processes, processes_to_use

__all__ = ["FileHeader", "read_file_header", "read_file_headers", "read_image_size"]

PART = 500  # headers that a process reads at a time
MANY = 8 * PART  # fewer are read before several processes are started


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


def read_file_headers(
    count: int, path_of: Callable[[int], Path]
) -> Iterator[FileHeader | ImageError]:
    """Yield what each of many image files says of itself, or why it cannot be used, in order.

    Args:
        count: of the files.
        path_of: the file of each index; asked where it is read, as so many paths take memory.
    """
    parts = [range(start, min(start + PART, count)) for start in range(0, count, PART)]
    processes = processes_to_use() if count >= MANY else 1
    for part, headers in zip(
        parts, in_processes(partial(_headers_of, path_of), parts, processes), strict=True
    ):
        for index, header in zip(part, headers, strict=True):
            if header is not None:
                yield header
                continue
            try:
                yield read_file_header(path_of(index))
            except ImageError as error:
                yield error


def _headers_of(path_of: Callable[[int], Path], part: range) -> list[FileHeader | None]:
    """Headers of some files; None for one that is to be decoded, or has something wrong."""
    headers: list[FileHeader | None] = []
    for index in part:
        try:
            headers.append(_stated(path_of(index)))
        except ImageError:
            headers.append(None)
    return headers


def read_file_header(path: Path) -> FileHeader:
    """What an image file says of itself; raises as `read_image_size`."""
    header = _stated(path)
    if header is None:
        height, width = read_image(path).shape[:2]
        header = FileHeader(size=(height, width))
    return header


def _stated(path: Path) -> FileHeader | None:
    """What the bytes of a file say; None if only decoding can tell."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            header = read_header(path, file, length)
            has_end = header is None or _has_end(file, length, header.kind)
    except OSError as error:
        raise ImageError.about(path, f"cannot be read ({error.strerror})", "is it there?") from None
    if header is None or not (has_end or header.kind == JPEG):
        return None
    return FileHeader(size=header.size, cut_off=not has_end, deep=header.deep)


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
