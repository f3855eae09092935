"""Video files, written frame by frame."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from yolox.utils.errors import UserError
from yolox.utils.files import require_writable

__all__ = ["writing_video"]

_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


@contextmanager
def writing_video(path: Path, fps: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that appends BGR uint8 (height, width, 3) frames, all of one size, to a new video.

    The file takes its name when it is whole; a stop by Ctrl-C, too, leaves what was written by
    then. Without a frame there is no file.

    Args:
        path: of the file, .mp4 or .avi; its folder is made if need be.
        fps: frames a second.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    if path.suffix.lower() not in _CODECS:
        raise UserError(f"cannot write {path}: expected a name that ends in .mp4 or .avi")
    require_writable(path.parent)
    writer: Any = None
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        part = Path(folder) / path.name

        def append(frame: NDArray[np.uint8]) -> None:
            nonlocal writer
            if writer is None:
                code = cv2.VideoWriter.fourcc(*_CODECS[path.suffix.lower()])
                size = (frame.shape[1], frame.shape[0])
                opened = cv2.VideoWriter(str(part), code, fps, size)
                if not opened.isOpened():
                    raise UserError(
                        f"cannot write {path}: OpenCV has no encoder here for it, with frames of "
                        f"{size[0]}×{size[1]} pixels, {fps:g} a second"
                    )
                writer = opened
            writer.write(frame)

        try:
            yield append
        finally:
            if writer is not None:
                writer.release()
                shutil.move(part, path)
