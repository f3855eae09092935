"""The one sample type that every reader produces, and the data set that serves samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from yolox.data.data_augment import fit_size
from yolox.data.datasets.image_cache import CACHE_TYPES, build_cache
from yolox.data.decoding import decode, read_bytes
from yolox.data.errors import DataError

ImageInfo = tuple[int, int]
Item = tuple[npt.NDArray[Any], npt.NDArray[np.float32], ImageInfo, npt.NDArray[np.int64]]
Transform = Callable[..., tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image and its ground truth.

    Attributes:
        image_id: unique within the data set.
        name: of the image, as in `Record`.
        path: the image file.
        height, width: of the image in pixels.
        boxes: float32 (n, 4), x1 y1 x2 y2 in original pixels, 0-based, inside the image.
        classes: int64 (n,), index into the data set's ``class_names``.
        difficult: bool (n,), objects that an evaluation does not count.
    """

    image_id: int
    name: str
    path: Path
    height: int
    width: int
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.classes.shape != (n,) or self.difficult.shape != (n,):
            raise ValueError(
                f"{self.name}: expected boxes (n, 4), classes (n,), difficult (n,), got "
                f"{self.boxes.shape}, {self.classes.shape}, {self.difficult.shape}"
            )
        if self.height < 1 or self.width < 1:
            raise ValueError(f"{self.name}: image size is {self.height} x {self.width}")


class DetectionDataset(Dataset[Item]):
    """Samples with their images: what evaluation reads, and what ``MosaicDetection`` draws from.

    Args:
        samples: the images and their ground truth.
        class_names: names by class index.
        img_size: (height, width) of the network's input in pixels.
        preproc: ``(img, targets, img_size) -> (img, targets)``, or None to get them raw.
        cache: decode all images now and keep them; the same pixels, sooner. See ``image_cache``.
        cache_type: ``ram``, or ``disk`` to keep them for later runs.
        train_difficult: False to leave difficult objects out of ``labels``; evaluation still
            ignores them. So it must be where they are crowds, which no box describes (COCO).

    Raises DataError for another cache type, or images or room that caching lacks.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_names: Sequence[str],
        img_size: tuple[int, int] = (416, 416),
        preproc: Transform | None = None,
        cache: bool = False,
        cache_type: str = "ram",
        *,
        train_difficult: bool = True,
    ) -> None:
        if cache_type not in CACHE_TYPES:
            raise DataError(f"cache_type must be one of {', '.join(CACHE_TYPES)}: {cache_type!r}")
        # A table stays one: as a list it would take many times the memory.
        self.samples = list(samples) if isinstance(samples, (list, tuple)) else samples
        self.class_names = tuple(class_names)
        self.img_size = (int(img_size[0]), int(img_size[1]))
        self.preproc = preproc
        self.train_difficult = train_difficult
        wanted = cache and len(self.samples) > 0
        self.image_cache = build_cache(self.samples, self.img_size, cache_type) if wanted else None

    def __len__(self) -> int:
        return len(self.samples)

    def load_image(self, index: int) -> npt.NDArray[np.uint8]:
        """The image, BGR uint8 (height, width, 3). Raises as `load_reduced`."""
        return self.load_reduced(index, 1)

    def load_reduced(self, index: int, factor: int) -> npt.NDArray[np.uint8]:
        """The image at 1 / ``factor`` of its size (1, 2, 4 or 8), sides rounded up.

        A JPEG is decoded straight to that size, which is both faster and better filtered than
        decoding all of it and scaling down. Raises DataError if the file cannot be decoded, or is
        not of the sample's size.
        """
        sample = self.samples[index]
        cached = None if self.image_cache is None else self.image_cache.get(sample.path, factor)
        if cached is not None:
            return cached
        size = (sample.height, sample.width)
        return decode(sample.path, read_bytes(sample.path), factor, size)

    def load_resized_img(self, index: int) -> tuple[npt.NDArray[np.uint8], float]:
        """The image resized to fit inside ``img_size``, aspect kept; and the ratio of the sizes."""
        img = self.load_image(index)
        (height, width), ratio = fit_size(img.shape[:2], self.img_size)
        if (height, width) != img.shape[:2]:
            img = cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
        return img, ratio

    def labels(self, index: int) -> npt.NDArray[np.float32]:
        """What to train on, float32 (n, 5): x1 y1 x2 y2 in original pixels, class."""
        sample = self.samples[index]
        classes = sample.classes[:, None].astype(np.float32)
        labels = np.concatenate([sample.boxes, classes], axis=1)
        return labels if self.train_difficult else labels[~sample.difficult]

    def pull_item(self, index: int) -> Item:
        """An image before ``preproc``.

        Returns:
            img: BGR uint8, fits inside ``img_size``.
            labels: float32 (n, 5), x1 y1 x2 y2 in pixels of ``img``, class.
            img_info: (height, width) of the original.
            img_id: int64 (1,).
        """
        sample = self.samples[index]
        img, ratio = self.load_resized_img(index)
        labels = self.labels(index)
        labels[:, :4] *= ratio
        image_id = np.array([sample.image_id], dtype=np.int64)
        return img, labels, (sample.height, sample.width), image_id

    def __getitem__(self, index: int) -> Item:
        img, labels, img_info, image_id = self.pull_item(index)
        if self.preproc is None:
            return img, labels, img_info, image_id
        out, target = self.preproc(img, labels, self.img_size)
        return out, target, img_info, image_id
