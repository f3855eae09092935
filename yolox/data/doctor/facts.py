"""What the image files themselves are, found by decoding every one of them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.decoding import WrongSize, bits_used, decode
from yolox.data.image_header import (
    HEAD_BYTES,
    JPEG,
    ImageError,
    TooManyPixels,
    format_of,
    is_complete,
)
from yolox.utils.cores import cores
from yolox.utils.progress import track

Flaw = Literal[
    "missing", "unreadable", "empty", "truncated", "undecodable", "oversized", "missized"
]
_AHEAD = 1024  # images that are inspected or wait for it
_FILL_VALUE = 128  # what a JPEG decoder shows where the file has no more to say
_MIN_BLOCK_ROWS = 8  # rows: less than that of one grey is no block that the file left out


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """One image file.

    Attributes:
        flaw: why there are no pixels, None where there are; then all below holds.
        why: more about the flaw, to follow the file's name; may be empty.
        size: (height, width) as decoded, by EXIF orientation.
        digest: of the file's bytes; files of the same digest are the same.
        complete: the file has its format's end mark (always true of formats without).
        grey: share of a JPEG, from the bottom, for which the file has no data.
        bits: of a 16-bit image, those that its largest value needs; None of others.
    """

    flaw: Flaw | None = None
    why: str = ""
    size: tuple[int, int] | None = None
    digest: str = ""
    complete: bool = True
    grey: float = 0.0
    bits: int | None = None


Facts = Mapping[Path, ImageFacts]


def inspect_images(paths: Iterable[Path], workers: int | None = None) -> dict[Path, ImageFacts]:
    """Read and decode every image once, in threads, with a progress bar.

    Args:
        paths: image files; a path that comes twice is read once.
        workers: threads; None for one a processor that this process may use.
    """
    unique = list(dict.fromkeys(paths))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # images are the parallelism
    pool = ThreadPoolExecutor(workers or cores())
    try:
        found = track(_in_turn(pool, unique), "Images", total=len(unique))
        return dict(zip(unique, found, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # when stopped by hand: the rest need not be read
        cv2.setNumThreads(threads)


def _in_turn(pool: ThreadPoolExecutor, paths: Iterable[Path]) -> Iterator[ImageFacts]:
    """The facts of each image, a few of them found ahead: `map` would queue all at once."""
    ahead: deque[Future[ImageFacts]] = deque()
    for path in paths:
        ahead.append(pool.submit(inspect_image, path))
        if len(ahead) > _AHEAD:
            yield ahead.popleft().result()
    for future in ahead:
        yield future.result()


def inspect_image(path: Path) -> ImageFacts:
    """Read and decode one image file; never raises for what the file holds."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ImageFacts(flaw="missing")
    except OSError:
        return ImageFacts(flaw="unreadable")
    if not data:
        return ImageFacts(flaw="empty")
    content = np.frombuffer(data, dtype=np.uint8)
    jpeg, complete = format_of(data[:HEAD_BYTES]) == JPEG, is_complete(data)
    try:
        img = decode(path, content, 1)
    except TooManyPixels as error:
        return ImageFacts(flaw="oversized", why=error.what)
    except WrongSize as error:
        return ImageFacts(flaw="missized", why=error.what)
    except ImageError:
        return ImageFacts(flaw="undecodable" if complete else "truncated")
    return ImageFacts(
        size=(int(img.shape[0]), int(img.shape[1])),
        digest=hashlib.blake2b(data, digest_size=16).hexdigest(),
        complete=complete,
        grey=_grey_share(img) if jpeg else 0.0,
        bits=bits_used(content),
    )


def _grey_share(img: npt.NDArray[np.uint8]) -> float:
    filled = (img == _FILL_VALUE).all(axis=(1, 2))[::-1]
    rows = len(filled) if filled.all() else int(filled.argmin())
    return rows / len(img) if rows >= _MIN_BLOCK_ROWS else 0.0
