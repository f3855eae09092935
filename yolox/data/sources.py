"""Pictures to detect in: image files, folders, patterns, arrays, PIL images, videos, cameras."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from yolox.data.datasets.files import IMAGE_EXTENSIONS
from yolox.data.decoding import read_image
from yolox.data.errors import DataError, bullets
from yolox.data.image_header import ImageError

Image = npt.NDArray[np.uint8]

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_STREAMS = ("rtsp://", "rtmp://", "http://", "https://", "udp://")
# Containers tell a number of frames that may be off by a few where they were cut without decoding.
_FRAME_COUNT_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: BGR uint8 (height, width, 3).
        path: the image file, or the video; None of arrays and cameras.
        name: below the source, as ``cats/one.jpg``; of what is no image file, made up.
        number: place in the source, from 0.
    """

    image: Image
    path: Path | None
    name: str
    number: int


class Images:
    """Image files and images in memory, one after another.

    A file that cannot be decoded is left out, and told once the others are through.

    Args:
        items: files, with what each is called; or images.
    """

    fps: float | None = None

    def __init__(self, items: Iterable[tuple[Path, str] | Image]) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def paths(self) -> list[Path]:
        """The files among the items."""
        return [item[0] for item in self._items if isinstance(item, tuple)]

    @property
    def names(self) -> list[str]:
        """What the files are called below the source."""
        return [item[1] for item in self._items if isinstance(item, tuple)]

    def __iter__(self) -> Iterator[Frame]:
        unread = []
        for number, item in enumerate(self._items):
            if not isinstance(item, tuple):
                yield Frame(image=item, path=None, name=f"image_{number}.jpg", number=number)
                continue
            path, name = item
            try:
                image = read_image(path)
            except ImageError as error:
                unread.append(f"{path} {error.what}")
                continue
            yield Frame(image=image, path=path, name=name, number=number)
        if unread and len(self) == 1:
            raise DataError(
                f"{unread[0]}: expected an image, a folder or pattern of images, or a video "
                f"({', '.join(VIDEO_EXTENSIONS)})"
            )
        if unread:
            raise DataError(
                f"{len(unread)} of {len(self)} files cannot be decoded:{bullets(unread)}"
            )


class Video:
    """The frames of a video file.

    Attributes:
        fps: frames a second, as the file says; 25 where it does not.
    """

    def __init__(self, path: Path) -> None:
        """Raises DataError if the file cannot be opened as a video."""
        self.path = path
        with _capture(str(path)) as capture:
            if not capture.isOpened():
                raise DataError(
                    f"video {path} cannot be decoded: it is damaged, cut off, or its codec is "
                    "unknown to OpenCV; convert it to H.264 in .mp4"
                )
            self._frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            self.fps: float | None = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0

    def __len__(self) -> int:
        return self._frames

    def __iter__(self) -> Iterator[Frame]:
        number = -1
        with _capture(str(self.path)) as capture:
            for number in count():
                there, image = capture.read()
                if not there:
                    break
                name = f"{self.path.stem}_{number:06d}.jpg"
                yield Frame(image=_bgr(image), path=self.path, name=name, number=number)
        if number < self._frames * (1 - _FRAME_COUNT_TOLERANCE):
            raise DataError(
                f"video {self.path} ends early: {number} of the {self._frames} frames that it "
                "announces can be decoded; what was found in them is kept"
            )


class Camera:
    """The frames of a camera or a network stream, without end; Ctrl-C or the reader ends them."""

    fps: float | None = None

    def __init__(self, address: int | str) -> None:
        """Args: `address`: number of a camera of this machine, or a stream's address."""
        self.address = address

    def __iter__(self) -> Iterator[Frame]:
        with _capture(self.address) as capture:
            if not capture.isOpened():
                raise DataError(
                    f"no camera {self.address}: is it connected, and not in use by another program?"
                    if isinstance(self.address, int)
                    else f"stream {self.address} cannot be opened: is the address right?"
                )
            for number in count():
                there, image = capture.read()
                if not there:
                    raise DataError(
                        f"camera {self.address} gives no more pictures, {number} came: is it still "
                        "connected?"
                    )
                name = f"camera_{number:06d}.jpg"
                yield Frame(image=_bgr(image), path=None, name=name, number=number)


Source = Images | Video | Camera


def open_source(source: Any) -> Source:
    """What a person names, as frames.

    Args:
        source: an image file, a folder (with all images below it), a pattern as ``photos/*.jpg``, a
            video file, a stream's address; the number of a camera; an array, BGR uint8
            (height, width, 3) or grey (height, width); a PIL image; or a list of paths, arrays and
            PIL images.

    Raises:
        DataError: nothing of that is there, or an array of another form.
    """
    if isinstance(source, bool):
        raise DataError(f"expected pictures, a video or a camera, got {source}")
    if isinstance(source, (int, np.integer)):
        return Camera(int(source))
    if isinstance(source, (str, os.PathLike)):
        return _named(os.fspath(source))
    if isinstance(source, np.ndarray) or _is_pil(source):
        return Images([_image(source)])
    if isinstance(source, Iterable):
        return _listed(list(source))
    raise DataError(
        f"expected a path, an array, a PIL image, a camera's number or a list of them, got "
        f"{type(source).__name__}"
    )


def find_images(path: Path) -> list[Path]:
    """The image file itself, or those below a folder; see `open_source`."""
    opened = open_source(path)
    if not isinstance(opened, Images):
        raise DataError(f"{path} is a video: expected an image, or a folder of images")
    return opened.paths


def _named(text: str) -> Source:
    if text.startswith(_STREAMS):
        return Camera(text)
    path = Path(text)
    if path.is_dir():
        images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS)
        if images:
            return Images([(image, str(image.relative_to(path))) for image in images])
        raise DataError(
            f"no image in the folder {path}: expected files that end in "
            f"{', '.join(IMAGE_EXTENSIONS)}"
        )
    if path.is_file():
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            return Video(path)
        return Images([(path, path.name)])
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 - absolute, too
    images = [match for match in matches if match.suffix.lower() in IMAGE_EXTENSIONS]
    if images:
        root = Path(os.path.commonpath([image.parent for image in images]))
        return Images([(image, str(image.relative_to(root))) for image in images])
    raise DataError(
        f"nothing to look at in {text}: expected an image, a folder of images, a pattern as "
        "photos/*.jpg, or a video"
    )


def _listed(items: list[Any]) -> Images:
    if not items:
        raise DataError("the list of pictures is empty")
    found: list[tuple[Path, str] | Image] = []
    for item in items:
        if isinstance(item, (str, os.PathLike)):
            opened = _named(os.fspath(item))
            if not isinstance(opened, Images):
                raise DataError(f"{item}: a list holds images alone; give a video by itself")
            found += opened._items
        else:
            found.append(_image(item))
    return Images(found)


def _is_pil(value: Any) -> bool:
    # By its shape rather than its class, which would have to be imported for it.
    return hasattr(value, "convert") and hasattr(value, "getbands")


def _image(value: Any) -> Image:
    if _is_pil(value):
        return np.ascontiguousarray(np.asarray(value.convert("RGB"))[:, :, ::-1])
    if not isinstance(value, np.ndarray):
        raise DataError(f"expected a path, an array or a PIL image, got {type(value).__name__}")
    if value.dtype != np.uint8 or value.ndim not in (2, 3) or 0 in value.shape:
        raise DataError(
            f"expected an image as BGR uint8 (height, width, 3), got {value.dtype} {value.shape}"
        )
    return _bgr(value)


def _bgr(image: npt.NDArray[Any]) -> Image:
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return np.ascontiguousarray(image)
    if channels not in (1, 4):
        raise DataError(f"expected an image of 1, 3 or 4 channels, got {image.shape}")
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    converted: Image = cv2.cvtColor(image, code)
    return converted


@contextmanager
def _capture(address: int | str) -> Iterator[Any]:
    """A capture that is closed at the end, and says nothing of its own."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # The other readers of files write to the terminal what they dislike.
    capture = cv2.VideoCapture(address, cv2.CAP_ANY if type(address) is int else cv2.CAP_FFMPEG)
    try:
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(before)
