"""Decoded images, kept once for all processes of a machine's loader, in memory or on disk.

The cache changes speed, never a pixel: it holds what the decoder gives, at each reduction that
training asks for, and whatever it does not hold is decoded from the file as ever.

It is one flat file, mapped read-only: header, table of slots, pixels. Each slot has a checksum,
which every process compares the first time it reads the slot: an image damaged on the disk since is
named, and decoded from its file. In memory (``ram``) that file
is anonymous: worker processes, forked or spawned, map the same pages, and the pages go with the
last of them; each rank of a run on several devices fills its own. On disk it stays for the next run
and is shared by ranks too, in ``.yolox_cache`` of the images' common folder, or where that cannot
be written, in ``images`` of the user's cache folder (see ``cache_folder``). Its name and header
hold a key of all that its pixels depend on; a file with another key is never read. The folder may
be deleted at any time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import context, reduction
from pathlib import Path
from threading import Lock
from typing import IO, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from loguru import logger

from yolox.data.data_augment import fit_size
from yolox.data.decoding import (
    FACTORS,
    Image,
    decode,
    decode_factor,
    read_bytes,
    reduced_size,
)
from yolox.data.errors import DataError, bullets
from yolox.utils.cache_folder import cache_folder, locked
from yolox.utils.cores import cores
from yolox.utils.dist import ranks_here
from yolox.utils.files import replacing
from yolox.utils.memory import available_memory
from yolox.utils.progress import track

# (images, 4, 4): offset, height, width, CRC-32 of the pixels, by factor; 0 if not kept
Slots = npt.NDArray[np.int64]

CACHE_TYPES = ("ram", "disk")
_LEVELS = {factor: level for level, factor in enumerate(FACTORS)}
_SLOT_LENGTH = 4  # numbers
_MAGIC = b"yoloxim2"  # the format's version is its last character
_HEADER = struct.Struct("<8s32s32sqq")  # magic, key, digest of the slots, images, bytes in all
_STRIDE = 32  # of the network: the input's sides are multiples
_MEMORY_SHARE = 0.9  # of what is available; training itself needs some
_IMAGES_AT_ONCE = 1024  # images handed to the threads at once


class ImageFile(Protocol):
    """What the cache has to know of a sample; height and width in pixels."""

    @property
    def path(self) -> Path:
        """File that is decoded."""
        ...

    @property
    def height(self) -> int:
        """Pixels, as the image is shown: turned as its EXIF orientation says."""
        ...

    @property
    def width(self) -> int:
        """Pixels, likewise."""
        ...


class ImageCache:
    """Read access to a filled cache. Pickled for a worker process, it takes no pixel along.

    Args:
        fd: descriptor of the file, which is closed with this object.
        paths: of the images, in the order of the slots.
        name: of the file, for messages.
    """

    def __init__(self, fd: int, paths: Sequence[Path], name: str) -> None:
        self.fd = fd
        self._paths = paths
        self._name = name
        self._rows = {path: row for row, path in enumerate(paths)}
        weakref.finalize(self, os.close, fd)
        self._bytes = np.frombuffer(mmap.mmap(fd, 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        table = self._bytes[_HEADER.size :][: len(paths) * len(_LEVELS) * _SLOT_LENGTH * 8]
        self._slots = table.view(np.int64).reshape(len(paths), len(_LEVELS), _SLOT_LENGTH)
        self._sound: dict[tuple[int, int], bool] = {}  # slots compared with their checksums

    def get(self, path: Path, factor: int) -> Image | None:
        """A copy of the image decoded at 1 / ``factor`` (1, 2, 4, 8), None if there is none."""
        level, row = _LEVELS[factor], self._rows.get(path)
        if row is None:
            return None
        offset, height, width, checksum = self._slots[row, level].tolist()
        if not offset:
            return None
        pixels = self._bytes[offset : offset + height * width * 3]
        if (row, level) not in self._sound:
            self._sound[row, level] = sound = zlib.crc32(pixels.data) == checksum
            if not sound:
                logger.warning(
                    f"{self._name} is damaged where it holds {path}, which is decoded from its "
                    f"file instead: delete the cache, and the next run makes a new one"
                )
        return pixels.reshape(height, width, 3).copy() if self._sound[row, level] else None

    def __reduce__(self) -> tuple[Any, ...]:
        # a descriptor goes to a process being spawned, and nowhere else
        if context.get_spawning_popen() is None or not hasattr(reduction, "DupFd"):
            return _without_cache, ()
        return _attach, (reduction.DupFd(self.fd), self._paths, self._name)


def _attach(handle: Any, paths: Sequence[Path], name: str) -> ImageCache:
    return ImageCache(handle.detach(), paths, name)


def _without_cache() -> None:
    """What a cache is elsewhere: nothing, so that images are decoded from their files."""


def build_cache(
    images: Sequence[ImageFile], img_size: tuple[int, int], cache_type: str
) -> ImageCache:
    """The images as training reads them when its input is ``img_size`` (height, width).

    Args:
        images: at least one. Each is kept at the factor it is read at when shown as large as it
            fits into ``img_size``, and at the coarser ones (a third more bytes at most).
        img_size: (height, width) of the input, pixels.
        cache_type: ``ram``, or ``disk`` to keep it for later runs.

    Raises:
        DataError: images that cannot be read, all of them; or there is no room.
    """
    unique = list({image.path: image for image in images}.values())
    slots, size = plan_slots(unique, img_size)
    if cache_type == "ram":
        return _in_memory(unique, img_size, slots, size)
    return _on_disk(unique, img_size, slots, size)


def plan_slots(images: Sequence[ImageFile], img_size: tuple[int, int]) -> tuple[Slots, int]:
    """Where each image's pixels go, and the length of the file in bytes."""
    slots = np.zeros((len(images), len(_LEVELS), _SLOT_LENGTH), dtype=np.int64)
    for row, image in zip(slots, images, strict=True):
        finest = decode_factor(fit_size((image.height, image.width), img_size)[1])
        for factor, level in _LEVELS.items():
            if factor >= finest:
                row[level, 1:3] = reduced_size((image.height, image.width), factor)
    sizes = (slots[..., 1] * slots[..., 2] * 3).reshape(-1)
    ends = _HEADER.size + slots.nbytes + np.cumsum(sizes)
    slots[..., 0] = np.where(sizes, ends - sizes, 0).reshape(slots.shape[:2])
    return slots, int(ends[-1])


def _smaller(images: Sequence[ImageFile], img_size: tuple[int, int], room: float) -> str:
    """The largest half, quarter or eighth of the input size whose cache fits, for a message."""
    for factor in FACTORS[1:]:
        height, width = (max(_STRIDE, side // factor // _STRIDE * _STRIDE) for side in img_size)
        size = plan_slots(images, (height, width))[1]
        if size <= room:
            return f"; at input_size {height},{width} it needs {size / 1e9:.2f} GB and would fit"
    return ""


# ------------------------------------------------------------------------------------------- memory


def _in_memory(
    images: Sequence[ImageFile], img_size: tuple[int, int], slots: Slots, size: int
) -> ImageCache:
    ranks = ranks_here()  # each of which fills its own
    free = available_memory()
    if free is not None and size * ranks > free * _MEMORY_SHARE:
        each = f" ({size / 1e9:.2f} GB in each of {ranks} processes)" if ranks > 1 else ""
        raise DataError(
            f"the image cache needs {size * ranks / 1e9:.2f} GB of memory{each}, and of "
            f"{free / 1e9:.2f} GB free at most {_MEMORY_SHARE:.0%} may be taken: use the disk "
            f"cache (cache_type disk), which also stays for the next run, or none"
            + _smaller(images, img_size, free * _MEMORY_SHARE / ranks)
        )
    with _anonymous_file() as file:
        _fill(file, images, slots, size, key=bytes(32))
        logger.info(f"{len(images)} images cached in memory: {size / 1e9:.2f} GB")
        paths = [image.path for image in images]
        return ImageCache(os.dup(file.fileno()), paths, "the image cache in memory")


def _anonymous_file() -> IO[bytes]:
    """A file without a name, of memory where the system has such (a full /dev/shm is no matter)."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("yolox-images"), "w+b")
    return tempfile.TemporaryFile()


# --------------------------------------------------------------------------------------------- disk


def _on_disk(
    images: Sequence[ImageFile], img_size: tuple[int, int], slots: Slots, size: int
) -> ImageCache:
    paths = [image.path for image in images]
    data, key = _data_id(paths), _key(images, img_size, slots)
    name = f"{data}-{key.hex()[:16]}.cache"
    folders = _folders(paths)
    for folder in folders:
        if (cache := _open(folder / name, key, size, paths)) is not None:
            logger.info(f"{len(images)} images cached in {folder / name}")
            return cache
    folder = _writable(folders)
    with locked(folder / "lock") as alone:
        cache = _open(folder / name, key, size, paths)  # another process may have been quicker
        if cache is None:
            _clean(folder, data, leftovers=alone)
            _write(folder / name, images, img_size, slots, size, key)
            cache = _open(folder / name, key, size, paths)
    if cache is None:
        raise DataError(f"{folder / name} was changed while it was made: start again")
    return cache


def _write(
    path: Path,
    images: Sequence[ImageFile],
    img_size: tuple[int, int],
    slots: Slots,
    size: int,
    key: bytes,
) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise DataError(
            f"the image cache needs {size / 1e9:.2f} GB in {path.parent}, {free / 1e9:.2f} GB are "
            f"free: make room, use cache_type ram, or no cache" + _smaller(images, img_size, free)
        )
    with replacing(path, DataError, size) as temporary, temporary.open("wb") as file:
        _fill(file, images, slots, size, key)
    logger.info(f"{len(images)} images cached in {path}: {size / 1e9:.2f} GB")


def _open(path: Path, key: bytes, size: int, paths: Sequence[Path]) -> ImageCache | None:
    """The cache at ``path``; None if there is none, or one that does not fit."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    with file:
        table = len(paths) * len(_LEVELS) * _SLOT_LENGTH * 8
        head, slots = file.read(_HEADER.size), file.read(table)
        wanted = _HEADER.pack(_MAGIC, key, hashlib.sha256(slots).digest(), len(paths), size)
        if head != wanted or os.fstat(file.fileno()).st_size != size:
            logger.warning(f"{path} is damaged and is made again")
            return None
        return ImageCache(os.dup(file.fileno()), paths, str(path))


def _clean(folder: Path, data: str, leftovers: bool) -> None:
    """Remove what no run will read again: caches of the same images as they were before.

    Args:
        folder: where to look.
        data: ``_data_id`` of the images.
        leftovers: also what killed processes had begun to write.
    """
    for path in folder.glob(f"{data}-*.cache"):
        path.unlink(missing_ok=True)
        logger.info(f"removed {path}: images, input size or OpenCV have changed since")
    for path in folder.glob(f".{data}-*.tmp") if leftovers else ():
        path.unlink(missing_ok=True)


def _folders(paths: Sequence[Path]) -> tuple[Path, Path]:
    """Where a cache may lie, best first."""
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return Path(common) / ".yolox_cache", cache_folder() / "images"


def _writable(folders: Sequence[Path]) -> Path:
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
    raise DataError(
        f"there is no folder to write the image cache to; make one writable, set YOLOX_CACHE to "
        f"one that is, or use cache_type ram:{bullets(problems)}"
    )


def _data_id(paths: Sequence[Path]) -> str:
    """A name for a set of image files, whatever is in them."""
    text = "\0".join(sorted(str(path.absolute()) for path in paths))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _key(images: Sequence[ImageFile], img_size: tuple[int, int], slots: Slots) -> bytes:
    """SHA-256 of all that the pixels depend on. Raises DataError with the images not there."""
    digest = hashlib.sha256()
    # the build information has OpenCV's version and that of the JPEG decoder inside
    digest.update(repr((_MAGIC, img_size, cv2.getBuildInformation())).encode())
    digest.update(slots.tobytes())
    missing = []
    for image in images:
        try:
            stat = image.path.stat()
        except OSError as error:
            missing.append(f"{image.path} ({error.strerror})")
            continue
        # files out of an archive may share a time of change, but not of being put in place
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        digest.update(ascii((str(image.path.absolute()), state)).encode())
    if missing:
        raise _unusable(missing, len(images))
    return digest.digest()


# ------------------------------------------------------------------------------------------ filling


def _fill(
    file: IO[bytes], images: Sequence[ImageFile], slots: Slots, size: int, key: bytes
) -> None:
    """Decode all images, in threads, into an empty file. Raises DataError with all that fail."""
    file.truncate(size)
    filled = np.zeros_like(slots)
    lock = Lock()

    def store(row: int) -> str | None:
        """Write one image at all its factors; what is wrong with it, if anything."""
        try:
            for level, img in _reductions(images[row], slots[row]):
                offset, pixels = int(slots[row, level, 0]), np.ascontiguousarray(img)
                with lock:
                    file.seek(offset)
                    file.write(pixels.data)
                filled[row, level] = offset, *img.shape[:2], zlib.crc32(pixels.data)
        except DataError as error:
            return str(error)
        return None

    pool = ThreadPoolExecutor(cores())
    try:
        problems = list(track(_in_batches(pool, store, len(images)), "image cache", len(images)))
    finally:
        pool.shutdown(cancel_futures=True)
    if any(problems):
        raise _unusable([text for text in problems if text], len(images))
    table = filled.tobytes()
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, key, hashlib.sha256(table).digest(), len(images), size))
    file.write(table)
    file.flush()


def _in_batches(pool: ThreadPoolExecutor, function: Any, count: int) -> Iterator[str | None]:
    for start in range(0, count, _IMAGES_AT_ONCE):
        yield from pool.map(function, range(start, min(count, start + _IMAGES_AT_ONCE)))


def _reductions(image: ImageFile, slots: Slots) -> Iterator[tuple[int, Image]]:
    """An image decoded for each of its slots (4, 4), with the slot's index.

    Raises DataError if it cannot be decoded, or is not of the size that it had.
    """
    data = read_bytes(image.path)
    for factor, level in _LEVELS.items():
        if slots[level, 0]:
            yield level, decode(image.path, data, factor, (image.height, image.width))


def _unusable(problems: Sequence[str], count: int) -> DataError:
    return DataError(
        f"{len(problems)} of {count} images cannot be cached. Correct them, or take their names "
        f"out of the split:{bullets(problems)}"
    )
