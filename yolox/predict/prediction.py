"""What was found in an image: to be read, drawn, saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from yolox.data.decoding import read_image
from yolox.utils.errors import UserError
from yolox.utils.files import write_bytes
from yolox.utils.visualize import vis


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What was found in one image.

    ``supervision.Detections(xyxy=p.xyxy, confidence=p.confidence, class_id=p.class_id)`` takes it.

    Attributes:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the image, inside it, by falling score.
        scores: float32 (n,), in [0, 1].
        classes: int64 (n,), index into `names`.
        names: class names of the model; empty where it does not know them.
        size: (height, width) of the image in pixels.
        path: the image file, or the video; None of arrays and cameras.
        name: of the image below its source, as ``cats/one.jpg``.
        number: place in the source, from 0.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    size: tuple[int, int]
    path: Path | None
    name: str
    number: int
    _pixels: NDArray[np.uint8] | None = field(default=None, repr=False)
    _is_frame: bool = field(default=False, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """`boxes`, as supervision calls them."""
        return self.boxes

    @property
    def confidence(self) -> NDArray[np.float32]:
        """`scores`, as supervision calls them."""
        return self.scores

    @property
    def class_id(self) -> NDArray[np.int64]:
        """`classes`, as supervision calls them."""
        return self.classes

    @property
    def class_names(self) -> list[str]:
        """Name of each detection's class; its number where the model knows no names."""
        return [self.names[k] if self.names else str(k) for k in self.classes.tolist()]

    @property
    def image(self) -> NDArray[np.uint8]:
        """The image, BGR uint8 (height, width, 3); a file is read again.

        Raises:
            UserError: a frame of a video from `predict`, which keeps none of them.
        """
        if self._pixels is not None:
            return self._pixels
        if self._is_frame:
            raise UserError(
                f"frame {self.number} of {self.path} was not kept, since a video's frames would "
                "not all fit in memory: take the predictions from stream(), one by one"
            )
        assert self.path is not None
        return read_image(self.path)

    def plot(self, conf: float = 0.0) -> NDArray[np.uint8]:
        """A copy of the image with boxes, classes and scores of at least ``conf`` drawn in.

        Returns:
            BGR uint8 (height, width, 3).
        """
        return vis(self.image, self.boxes, self.scores, self.classes, conf, self.names or None)

    def save(self, path: str | Path, conf: float = 0.0) -> Path:
        """Write `plot` to an image file, whose folder is made if need be; returns its path.

        Raises UserError if the file cannot be written.
        """
        path = Path(path)
        try:
            good, data = cv2.imencode(path.suffix, self.plot(conf))
        except cv2.error:
            good = False
        if not good:
            raise UserError(f"cannot write {path}: expected a name that ends in .jpg or .png")
        write_bytes(path, data.tobytes())
        return path
