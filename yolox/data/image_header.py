"""What the header of an image file says, read without decoding a pixel: its size and orientation.

Annotation files are often wrong about the size of their image, and every box is scaled by it, so
the image itself is asked. Pillow reads the headers. The orientation is that of EXIF, and it is
applied here and in `decoding` alone, because OpenCV honours it for formats that differ from version
to version.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from yolox.data.errors import DataError
from yolox.utils.errors import UserError

__all__ = [
    "EXIF_MARK",
    "HEAD_BYTES",
    "JPEG",
    "JPEG_END",
    "PNG",
    "PNG_DEPTH_OFFSET",
    "PNG_END",
    "TAIL_BYTES",
    "Header",
    "ImageError",
    "TooManyPixels",
    "check_pixels",
    "format_of",
    "is_complete",
    "read_header",
    "require_regular",
]

JPEG, PNG, TIFF = "JPEG", "PNG", "TIFF"
HEAD_BYTES = 12  # that tell a format
EXIF_MARK = b"Exif\0\0"
PNG_DEPTH_OFFSET = 24  # bytes into the file
JPEG_END, PNG_END = b"\xff\xd9", b"IEND"
TAIL_BYTES = 64  # that hold the end of a PNG, and what little may follow it
LIMIT_VARIABLE, OPENCV_VARIABLE = "YOLOX_MAX_IMAGE_PIXELS", "OPENCV_IO_MAX_IMAGE_PIXELS"
_MAX_PIXELS = 1 << 30  # of an image, unless the variables say otherwise; OpenCV's own limit
# No whole file of the format holds more pixels a byte: Huffman codes of one bit for a block of
# 16 x 16 in a JPEG, deflate's 1032 : 1 for one bit a pixel in a PNG. Small ones are let be.
_MAX_DENSITY = {JPEG: 2048, PNG: 8256}
_DENSITY_FROM = 1 << 24  # pixels
_ORIENTATION_TAG, _START_OF_SCAN = 0x0112, 0xDA
REPLACE_ADVICE = "replace the file, or take its name out of the split"

# The plugins' classes are used, not ``Image.open``: its guard against large images is a setting of
# the whole process, and belongs to the program around us.
_READERS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    JPEG: JpegImagePlugin.JpegImageFile,
    PNG: PngImagePlugin.PngImageFile,
    TIFF: TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
_MAGIC = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"BM": "BMP",
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{f"P{digit}".encode(): "PPM" for digit in range(1, 7)},
}
# Metadata that is not used here may be as odd as it likes; threads rule out catch_warnings.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class ImageError(DataError):
    """An image file that cannot be used.

    Attributes:
        what: is wrong with it, to follow its name; with what to do, unless that is to replace it.
    """

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)  # alone, too: so a loader's worker hands the error on
        self.what = what or message

    @classmethod
    def about(cls, path: Path, reason: str, advice: str = REPLACE_ADVICE) -> ImageError:
        """The error of a file, of which `reason` says what is wrong."""
        what = reason if advice == REPLACE_ADVICE else f"{reason}: {advice}"
        return cls(f"image {path} {reason}: {advice}", what)


class TooManyPixels(ImageError):  # noqa: N818 - what it says is the error
    """An image that claims more pixels than may be, or can be, decoded."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a header says.

    Attributes:
        size: (height, width) in pixels of the image as it is shown, turned by its orientation.
        orientation: EXIF's, 1 to 8, which the pixels that OpenCV decodes still have to be turned
            by (always 1 for TIFF, which it turns itself).
        kind: the format, None where only decoding told.
        deep: values of more than 8 bits, of a PNG or TIFF.
    """

    size: tuple[int, int]
    orientation: int = 1
    kind: str | None = None
    deep: bool = False


def require_regular(path: Path) -> None:
    """Raises ImageError for a folder, a device or a pipe, which may keep its reader waiting.

    An OSError is the caller's to tell, as of the reading that follows.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError.about(path, "is no regular file")


def format_of(head: bytes) -> str | None:
    """The format of a file by its first bytes; None if it is none whose header is read."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def read_header(path: Path, file: BinaryIO, length: int) -> Header | None:
    """The header of an open image file; None if only decoding can tell.

    Args:
        path: of the file, for messages.
        file: to read from, at any position.
        length: of the file in bytes.

    Raises TooManyPixels for a size that may not be decoded.
    """
    file.seek(0)
    kind = format_of(file.read(HEAD_BYTES))
    if kind is None:
        return None
    try:
        file.seek(0)
        size, orientation, deep = _read(kind, file)
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise
        return None
    except Exception:  # whatever a library makes of a broken header
        return None
    if min(size) < 1:
        return None
    check_pixels(path, size, length, kind)
    turned = (size[1], size[0]) if orientation >= 5 else size
    left = 1 if kind == TIFF else orientation
    return Header(size=turned, orientation=left, kind=kind, deep=deep)


def _read(kind: str, file: BinaryIO) -> tuple[tuple[int, int], int, bool]:
    """(height, width) as stored, the orientation, and whether a PNG or TIFF has over 8 bits."""
    image = _READERS[kind](file)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow's own size is turned from version 11.1 on
        tags = image.tag_v2
        stored = int(tags[TiffImagePlugin.IMAGELENGTH]), int(tags[TiffImagePlugin.IMAGEWIDTH])
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        return stored, _known(tags.get(_ORIENTATION_TAG)), max(bits) > 8
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # Pillow joins the blocks of a JPEG, of which the first one with an orientation counts
        blocks = [
            content
            for name, content in image.applist
            if name == "APP1" and content.startswith(EXIF_MARK)
        ]
    else:
        blocks = [_png_exif(file) if kind == PNG else image.info.get("exif", b"")]
    found = (tag for tag in map(_tag, blocks) if tag is not None)
    orientation = _known(next(found, None))
    if kind == PNG:
        file.seek(PNG_DEPTH_OFFSET)
    return (image.size[1], image.size[0]), orientation, kind == PNG and file.read(1) == b"\x10"


def _png_exif(file: BinaryIO) -> bytes:
    """The eXIf chunk, which may follow the pixels; empty if there is none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)
    return b""


def _tag(exif: bytes) -> int | None:
    """The orientation that an Exif block holds, with or without its mark; None if it has none."""
    tiff = exif.removeprefix(EXIF_MARK)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * i)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        pass
    return None


def _known(orientation: object) -> int:
    """An orientation of those that EXIF defines; 1, upright, for anything else."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def is_complete(data: bytes) -> bool:
    """Whether an image file has its end mark, if its format has one.

    Of a JPEG the one after its headers counts, as a thumbnail there has its own; none can occur in
    coded pixels.
    """
    kind = format_of(data[:HEAD_BYTES])
    if kind != JPEG:
        return kind != PNG or PNG_END in data[-TAIL_BYTES:]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return data.find(JPEG_END, at) >= 0
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.rfind(JPEG_END) > data.rfind(bytes([0xFF, _START_OF_SCAN]))  # an odd header


# ------------------------------------------------------------------------------------------- limits


def check_pixels(path: Path, size: tuple[int, int], length: int, kind: str | None = None) -> None:
    """Raise TooManyPixels for an image of more pixels than allowed, or than its file can hold.

    Args:
        path: of the image.
        size: (height, width) that it claims.
        length: of its file in bytes.
        kind: its format, None if unknown.
    """
    pixels = size[0] * size[1]
    limits = {LIMIT_VARIABLE: _limit(), OPENCV_VARIABLE: _opencv_limit()}
    passed = [name for name, limit in limits.items() if pixels > limit]
    thin = pixels > max(_DENSITY_FROM, _MAX_DENSITY.get(kind or "", pixels) * length)
    if not (passed or thin):
        return
    claim = f"claims {size[0]} × {size[1]} (height × width) = {pixels} pixels"
    if passed:
        raise TooManyPixels.about(
            path,
            f"{claim}, and at most {min(limits.values())} are decoded",
            f"cut it or scale it down; or, if it is what you expect and there is memory for 6 "
            f"bytes a pixel, set {' and '.join(f'{name}={pixels}' for name in passed)} in the "
            f"environment",
        )
    raise TooManyPixels.about(
        path, f"{claim}, which its {length} bytes cannot hold: nearly all of it is missing"
    )


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE, "")
    if text and not (_is_number(text) and int(text) > 0):
        raise UserError(
            f"the environment variable {LIMIT_VARIABLE} is {text!r}: expected a number of pixels, "
            f"as {_MAX_PIXELS}"
        )
    return int(text or _MAX_PIXELS)


def _opencv_limit() -> int:
    # OpenCV takes units too; what is no plain number is left to its own check
    text = os.environ.get(OPENCV_VARIABLE, "")
    return int(text) if _is_number(text) else _MAX_PIXELS


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
