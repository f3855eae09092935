"""Mosaic and MixUp training samples.

A mosaic is four images around a random centre of a canvas twice the input's size, seen through a
random affine map. The canvas is never built: each tile goes from its file to the output in one
warp, tiles that the output does not show are not read, and JPEGs are decoded no larger than shown.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from yolox.data.data_augment import (
    PAD_VALUE,
    Floats,
    Image,
    Matrix,
    affine_matrix,
    clip_boxes,
    fit_size,
    has_area,
    transform_boxes,
    transform_points,
)
from yolox.data.datasets.sample import DetectionDataset, Item, Transform
from yolox.data.decoding import decode_factor
from yolox.data.samplers import Draw

_SUBPIXEL_BITS = 4  # of the polygon filler's fixed-point coordinates


def tile_offset(
    quadrant: int, centre: tuple[int, int], tile_size: tuple[int, int]
) -> tuple[int, int]:
    """Canvas position (x, y) of a tile's top left corner.

    Args:
        quadrant: 0 top left of the centre, 1 top right, 2 bottom left, 3 bottom right.
        centre: (x, y) on the canvas, where the tiles meet.
        tile_size: (height, width) of the tile.
    """
    x = centre[0] - (tile_size[1] if quadrant in (0, 2) else 0)
    y = centre[1] - (tile_size[0] if quadrant in (0, 1) else 0)
    return x, y


def scale_and_shift(scale: float, x: float, y: float) -> Matrix:
    """The (3, 3) map p -> scale * p + (x, y)."""
    return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def visible_rect(quad: npt.NDArray[np.float64], size: tuple[int, int]) -> tuple[int, ...] | None:
    """Whole-pixel bounds x1 y1 x2 y2 of a quadrilateral (4, 2) in an image, None if outside."""
    low = np.floor(quad.min(axis=0)).clip(0)
    high = np.minimum(np.ceil(quad.max(axis=0)), (size[1], size[0]))
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def warp_into(
    out: Image,
    img: Image,
    matrix: Matrix,
    quad: npt.NDArray[np.float64],
    rect: tuple[int, ...],
) -> None:
    """Draw ``img`` into ``out``, in place, where ``quad`` shows it.

    Args:
        out: uint8 (H, W, 3).
        img: uint8 (h, w, 3).
        matrix: (3, 3) from pixels of ``img`` to pixels of ``out``.
        quad: (4, 2) x, y corners of the region of ``out`` to draw.
        rect: ``visible_rect`` of the quad.
    """
    x1, y1, x2, y2 = rect
    # OpenCV counts from the centre of the first pixel, boxes and quads from its corner
    inner = scale_and_shift(1, -x1 - 0.5, -y1 - 0.5) @ matrix @ scale_and_shift(1, 0.5, 0.5)
    warped = cv2.warpAffine(
        img,
        inner[:2],
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,  # so that no padding bleeds into a tile's edge
    )
    corners = np.rint((quad - (x1 + 0.5, y1 + 0.5)) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    mask = np.zeros(warped.shape[:2], dtype=np.uint8)
    cv2.fillConvexPoly(mask, corners, 255, shift=_SUBPIXEL_BITS)
    cv2.copyTo(warped, mask, out[y1:y2, x1:x2])


class MosaicDetection(Dataset[Item]):
    """Training samples drawn from a data set.

    Args:
        dataset: where images and labels come from.
        img_size: (height, width) of the samples in pixels.
        mosaic: False to never make a mosaic.
        preproc: as ``TrainTransform``: ``(img, labels, img_size, rng=rng) -> (img, labels)``.
        degrees, translate, mosaic_scale, shear: see ``affine_matrix``.
        mixup_scale: range of the second image's scale.
        enable_mixup: blend mosaics with a second image.
        mosaic_prob, mixup_prob: probabilities.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        img_size: tuple[int, int],
        mosaic: bool = True,
        preproc: Transform | None = None,
        degrees: float = 10.0,
        translate: float = 0.1,
        mosaic_scale: tuple[float, float] = (0.5, 1.5),
        mixup_scale: tuple[float, float] = (0.5, 1.5),
        shear: float = 2.0,
        enable_mixup: bool = True,
        mosaic_prob: float = 1.0,
        mixup_prob: float = 1.0,
    ) -> None:
        self.dataset = dataset
        self.img_size = (int(img_size[0]), int(img_size[1]))
        self.mosaic = mosaic
        self.preproc = preproc
        self.degrees = degrees
        self.translate = translate
        self.mosaic_scale = mosaic_scale
        self.mixup_scale = mixup_scale
        self.shear = shear
        self.enable_mixup = enable_mixup
        self.mosaic_prob = mosaic_prob
        self.mixup_prob = mixup_prob
        self.with_objects = [i for i in range(len(dataset)) if len(dataset.labels(i))]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: int | Draw) -> Item:
        """Make one sample.

        Args:
            draw: a ``Draw``, of which the sample is a pure function; or a plain index, for a
                sample with fresh randomness.

        Returns:
            img: float32 (3, height, width) 0..255, BGR (uint8 HWC without ``preproc``).
            labels: float32 (n, 5), see ``TrainTransform``.
            img_info: (height, width) of a mosaic, or of the original of a plain image.
            img_id: int64 (1,), of the image drawn.
        """
        if isinstance(draw, Draw):
            index, mosaic = draw.index, draw.mosaic and self.mosaic
            rng = np.random.default_rng(draw.seed)
        else:
            index, mosaic, rng = draw, self.mosaic, np.random.default_rng()
        if mosaic and rng.random() < self.mosaic_prob:
            img, labels = self._mosaic(index, rng)
            if self.enable_mixup and len(labels) and rng.random() < self.mixup_prob:
                img, labels = self._mixup(img, labels, rng)
            img_info = self.img_size
            image_id = np.array([self.dataset.samples[index].image_id], dtype=np.int64)
        else:
            img, labels, img_info, image_id = self._plain(index)
        if self.preproc is None:
            return img, labels, img_info, image_id
        out, target = self.preproc(img, labels, self.img_size, rng=rng)
        return out, target, img_info, image_id

    def _plain(self, index: int) -> Item:
        """The whole image, decoded and resized just as for evaluation."""
        sample = self.dataset.samples[index]
        img = self.dataset.load_image(index)
        (height, width), ratio = fit_size(img.shape[:2], self.img_size)
        img = cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
        labels = self.dataset.labels(index)
        labels[:, :4] *= ratio
        image_id = np.array([sample.image_id], dtype=np.int64)
        return img, labels, (sample.height, sample.width), image_id

    def _mosaic(self, index: int, rng: np.random.Generator) -> tuple[Image, Floats]:
        height, width = self.img_size
        centre = (int(rng.uniform(0.5, 1.5) * width), int(rng.uniform(0.5, 1.5) * height))
        indices = [index, *rng.integers(0, len(self.dataset), 3).tolist()]
        matrix = affine_matrix(
            self.img_size, self.degrees, self.translate, self.mosaic_scale, self.shear, rng
        )
        out = np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)
        labels = [
            self.draw_tile(out, i, quadrant, centre, matrix) for quadrant, i in enumerate(indices)
        ]
        return out, np.concatenate(labels)

    def draw_tile(
        self,
        out: Image,
        index: int,
        quadrant: int,
        centre: tuple[int, int],
        matrix: Matrix,
    ) -> Floats:
        """Draw one image of a mosaic into ``out``; return its labels (n, 5) there."""
        sample = self.dataset.samples[index]
        height, width = self.img_size
        tile_size, ratio = fit_size((sample.height, sample.width), self.img_size)
        offset = tile_offset(quadrant, centre, tile_size)
        low = (max(0, offset[0]), max(0, offset[1]))
        high = (
            min(2 * width, offset[0] + tile_size[1]),
            min(2 * height, offset[1] + tile_size[0]),
        )
        quad = transform_points(
            matrix,
            np.array([low, (high[0], low[1]), high, (low[0], high[1])], dtype=np.float64),
        )
        rect = visible_rect(quad, self.img_size)
        if rect is None:
            return np.zeros((0, 5), dtype=np.float32)
        shown = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        # a tile never holds more detail than the fitted size, however much it is enlarged
        factor = decode_factor(ratio * min(1.0, shown))
        img = self.dataset.load_reduced(index, factor)
        warp_into(out, img, matrix @ scale_and_shift(ratio * factor, *offset), quad, rect)

        labels = self.dataset.labels(index)
        boxes = labels[:, :4] * ratio + np.array(offset * 2, dtype=np.float32)
        boxes = clip_boxes(boxes, low, high)
        kept = has_area(boxes)  # a box cut to a line would grow an area again when rotated
        labels, boxes = labels[kept], transform_boxes(matrix, boxes[kept])
        labels[:, :4] = clip_boxes(boxes, (0, 0), (width, height))
        return labels[has_area(labels)]

    def _mixup(self, img: Image, labels: Floats, rng: np.random.Generator) -> tuple[Image, Floats]:
        """Blend with half of another image that has objects; both images' labels."""
        height, width = self.img_size
        index = self.with_objects[int(rng.integers(len(self.with_objects)))]
        jitter = rng.uniform(*self.mixup_scale)
        mirror = rng.random() < 0.5
        sample = self.dataset.samples[index]
        _, ratio = fit_size((sample.height, sample.width), self.img_size)
        scale = ratio * jitter
        # the letterboxed image's size after the jitter, and where the input window lies on it
        sheet_w, sheet_h = int(width * jitter), int(height * jitter)
        x0 = int(rng.integers(0, max(1, sheet_w - width + 1)))
        y0 = int(rng.integers(0, max(1, sheet_h - height + 1)))

        added = self.dataset.labels(index)
        boxes = added[:, :4] * np.float32(scale)
        second = self.dataset.load_reduced(index, decode_factor(ratio * min(1.0, jitter)))
        size = (max(1, int(sample.width * scale)), max(1, int(sample.height * scale)))
        second = cv2.resize(second, size, interpolation=cv2.INTER_LINEAR)
        left = 0
        if mirror:
            second = cv2.flip(second, 1)
            boxes = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (sheet_w, 0, sheet_w, 0)
            left = sheet_w - size[0]
        blended = blend_half(img, second, left - x0, -y0)
        added[:, :4] = clip_boxes(boxes - (x0, y0, x0, y0), (0, 0), (width, height))
        return blended, np.concatenate([labels, added[has_area(added)]])


def blend_half(img: Image, second: Image, x: int, y: int) -> Image:
    """The mean of an image and another one placed at (x, y) of a grey sheet; a new array."""
    height, width = img.shape[:2]
    sheet = np.full_like(img, PAD_VALUE)
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(width, x + second.shape[1]), min(height, y + second.shape[0])
    if x1 < x2 and y1 < y2:
        sheet[y1:y2, x1:x2] = second[y1 - y : y2 - y, x1 - x : x2 - x]
    out: Image = cv2.addWeighted(img, 0.5, sheet, 0.5, 0.0)
    return out
