"""Pictures in every format and kind of pixel, with an orientation, as bytes of a file."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def exif(orientation: int) -> bytes:
    """An Exif block without its mark."""
    entry = struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return b"II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


def app1(content: bytes) -> bytes:
    """A segment of a JPEG."""
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def with_chunk(png: bytes, orientation: int, before: bytes = b"IDAT") -> bytes:
    """A PNG with its orientation before its pixels, or before its end (IEND)."""
    at = png.index(before) - 4
    return png[:at] + chunk(b"eXIf", exif(orientation)) + png[at:]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """RGB uint8 (height, width, 3), smooth enough for a JPEG to keep."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def pillow(img: np.ndarray, kind: str, mode: str, orientation: int, **options) -> bytes:
    picture = Image.fromarray(img).convert(mode)
    if orientation > 1:
        options |= (
            {"tiffinfo": {ORIENTATION: orientation}}
            if kind == "TIFF"
            else {"exif": b"Exif\0\0" + exif(orientation)}
        )
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def deep(img: np.ndarray, suffix: str, bits: int, orientation: int) -> bytes:
    """A colour picture of `bits` bits in 16."""
    values = img[..., ::-1].astype(np.uint16) << (bits - 8)
    if suffix == ".png":
        return with_chunk(cv2.imencode(".png", values)[1].tobytes(), orientation)
    data = bytearray(cv2.imencode(".tif", values)[1].tobytes())
    return bytes(data) if orientation == 1 else tiff_turned(bytes(data), orientation)


def tiff_turned(data: bytes, orientation: int) -> bytes:
    """A little-endian TIFF with its directory copied behind it, plus an orientation."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i :][:12] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack_from("<H", entry)[0] != ORIENTATION]
    entries.append(struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    data += bytes(len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def os2_bmp(img: np.ndarray) -> bytes:
    """A bitmap with the 12-byte header of OS/2 1.x."""
    height, width = img.shape[:2]
    rows = np.zeros((height, (width * 3 + 3) // 4 * 4), np.uint8)
    rows[:, : width * 3] = img[::-1, :, ::-1].reshape(height, -1)
    head = struct.pack("<2sIIIIHHHH", b"BM", 26 + rows.size, 0, 26, 12, width, height, 1, 24)
    return head + rows.tobytes()


def claiming(kind: str, side: int) -> bytes:
    """A small file that claims side × side pixels."""
    if kind == "JPEG":
        data = bytearray(pillow(noise(8, 8), "JPEG", "RGB", 1))
        at = data.index(b"\xff\xc0")
        struct.pack_into(">HH", data, at + 5, side, side)
        return bytes(data)
    data = bytearray(pillow(noise(8, 8), kind, "RGB", 1))
    if kind == "PNG":
        header = struct.pack(">II", side, side) + data[24:29]
        return bytes(data[:8]) + chunk(b"IHDR", header) + data[33:]
    if kind == "TIFF":
        (start,) = struct.unpack_from("<I", data, 4)
        for tag in (256, 257):  # width and length
            at = data.index(struct.pack("<H", tag), start)
            struct.pack_into("<HII", data, at + 2, 4, 1, side)
        return bytes(data)
    struct.pack_into("<ii", data, 18, side, side)  # BMP
    return bytes(data)


# by name: the suffix, whether it has an orientation, and (RGB picture, orientation) -> bytes
Writer = Callable[[np.ndarray, int], bytes]
KINDS: dict[str, tuple[str, bool, Writer]] = {
    **{
        f"JPEG {mode}": (".jpg", True, lambda img, o, mode=mode: pillow(img, "JPEG", mode, o))
        for mode in ("RGB", "L", "CMYK")
    },
    "JPEG progressive": (".jpg", True, lambda img, o: pillow(img, "JPEG", "RGB", o, progressive=1)),
    "JPEG 4:4:4": (".jpeg", True, lambda img, o: pillow(img, "JPEG", "RGB", o, subsampling=0)),
    **{
        f"PNG {mode}": (".png", True, lambda img, o, mode=mode: pillow(img, "PNG", mode, o))
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1")
    },
    "PNG, orientation last": (
        ".png",
        True,
        lambda img, o: with_chunk(pillow(img, "PNG", "RGB", 1), o, before=b"IEND"),
    ),
    **{
        f"{suffix} {bits} bits": (
            suffix,
            True,
            lambda img, o, suffix=suffix, bits=bits: deep(img, suffix, bits, o),
        )
        for suffix in (".png", ".tif")
        for bits in (12, 16)
    },
    **{
        f"TIFF {mode}": (".tiff", True, lambda img, o, mode=mode: pillow(img, "TIFF", mode, o))
        for mode in ("RGB", "RGBA", "L", "P", "1", "CMYK")
    },
    "TIFF LZW": (
        ".tif",
        True,
        lambda img, o: pillow(img, "TIFF", "RGB", o, compression="tiff_lzw"),
    ),
    "WebP": (".webp", True, lambda img, o: pillow(img, "WEBP", "RGB", o)),
    "WebP lossless": (".webp", True, lambda img, o: pillow(img, "WEBP", "RGBA", o, lossless=True)),
    **{
        f"BMP {mode}": (".bmp", False, lambda img, o, mode=mode: pillow(img, "BMP", mode, 1))
        for mode in ("RGB", "L", "P", "1")
    },
    "BMP of OS/2": (".bmp", False, lambda img, o: os2_bmp(img)),
    "MPO": (".mpo", True, lambda img, o: pillow(img, "MPO", "RGB", o)),
    "PPM": (".ppm", False, lambda img, o: pillow(img, "PPM", "RGB", 1)),
    "JPEG 2000": (".jp2", False, lambda img, o: pillow(img, "JPEG2000", "RGB", 1)),
}
if cv2.haveImageWriter("a.gif"):  # from OpenCV 4.11 on
    KINDS["GIF"] = (".gif", False, lambda img, o: pillow(img, "GIF", "P", 1))
