"""Image and box transforms: pure functions, all randomness from the generator passed in.

Images are BGR uint8 (height, width, 3). Boxes are x1 y1 x2 y2 in pixels, where pixel i covers
[i, i + 1): pixels and boxes go through one and the same geometry. Sizes are (height, width).
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

PAD_VALUE = 114
_CHW = (2, 0, 1)
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def fit_size(size: tuple[int, ...], target_size: tuple[int, int]) -> tuple[tuple[int, int], float]:
    """The largest size with the same aspect that fits inside the target, and target / original.

    Sides are rounded down, as the published weights were trained, but never to 0.
    """
    height, width = size
    ratio = min(target_size[0] / height, target_size[1] / width)
    return (max(1, int(height * ratio)), max(1, int(width * ratio))), ratio


def preproc(
    img: npt.NDArray[Any],
    input_size: tuple[int, int],
    swap: tuple[int, int, int] = _CHW,
) -> tuple[Floats, float]:
    """Letterbox: resize to fit, place at the top left, fill right and bottom with 114.

    Args:
        img: (height, width, 3), 0..255.
        input_size: (height, width) of the result.
        swap: order of the result's axes as a transpose of (height, width, channel).

    Returns:
        Float32 image 0..255, axes by ``swap``; and the ratio resized / original.
    """
    (height, width), ratio = fit_size(img.shape[:2], input_size)
    if (height, width) != img.shape[:2]:
        img = cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
    chw = np.empty((3, *input_size), dtype=np.float32)
    chw[:, height:] = PAD_VALUE
    chw[:, :height, width:] = PAD_VALUE
    # plane by plane: faster than a strided transpose followed by a cast
    for channel, plane in enumerate(chw):
        plane[:height, :width] = img[..., channel]
    if tuple(swap) == _CHW:
        return chw, ratio
    return np.ascontiguousarray(chw.transpose(1, 2, 0).transpose(swap)), ratio


def augment_hsv(
    img: Image, rng: np.random.Generator, hgain: int = 5, sgain: int = 30, vgain: int = 30
) -> Image:
    """Shift hue, saturation and value, each switched on with probability 1/2.

    Shifts are whole steps of OpenCV's 8-bit HSV, uniform in ±gain; hue turns round at 180,
    saturation and value saturate. Returns a new image.
    """
    shifts = rng.uniform(-1, 1, 3) * (hgain, sgain, vgain) * rng.integers(0, 2, 3)
    hue, saturation, value = shifts.astype(np.int64)
    if not (hue or saturation or value):
        return img.copy()
    steps = np.arange(256)
    table = np.stack(
        [(steps + hue) % 180, np.clip(steps + saturation, 0, 255), np.clip(steps + value, 0, 255)],
        axis=-1,
    ).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(img, cv2.COLOR_BGR2HSV), table[None])
    out: Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return out


def flip(img: Image, boxes: Floats) -> tuple[Image, Floats]:
    """Mirror left to right; boxes (n, 4) in pixels of the image. Returns new arrays."""
    width = img.shape[1]
    mirrored = boxes.copy()
    mirrored[:, 0] = width - boxes[:, 2]
    mirrored[:, 2] = width - boxes[:, 0]
    return cv2.flip(img, 1), mirrored


def affine_matrix(
    target_size: tuple[int, int],
    degrees: float,
    translate: float,
    scale: tuple[float, float],
    shear: float,
    rng: np.random.Generator,
) -> Matrix:
    """A random affine map, float64 (3, 3), of points (x, y, 1) in pixels.

    Rotation (uniform in ±degrees) and scale (uniform in the range) about the origin, then shear
    (angle of each axis uniform in ±shear degrees), then a shift of each axis uniform in
    ±translate of the target's (height, width).
    """
    angle = math.radians(rng.uniform(-degrees, degrees))
    factor = rng.uniform(*scale)
    shear_x, shear_y = np.tan(np.radians(rng.uniform(-shear, shear, 2)))
    shift_x, shift_y = rng.uniform(-translate, translate, 2)
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[1, shear_x], [shear_y, 1]]) @ np.array([[cos, sin], [-sin, cos]])
    matrix[:2, 2] = shift_x * target_size[1], shift_y * target_size[0]
    return matrix


def transform_points(matrix: Matrix, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Points (..., 2) as x, y through an affine (3, 3) matrix."""
    moved: npt.NDArray[np.float64] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def transform_boxes(matrix: Matrix, boxes: Floats) -> Floats:
    """The upright boxes (n, 4) around the four moved corners of each box."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = transform_points(matrix, corners)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def clip_boxes(boxes: Floats, low: tuple[float, float], high: tuple[float, float]) -> Floats:
    """Boxes (n, 4) cut to the region from ``low`` to ``high``, both (x, y). May become empty."""
    return np.clip(boxes, (*low, *low), (*high, *high)).astype(np.float32)


def has_area(boxes: Floats) -> npt.NDArray[np.bool_]:
    """Bool (n,): both sides are positive."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


class TrainTransform:
    """HSV shift, mirror, letterbox, and labels as the network's loss wants them.

    Args:
        max_labels: None to keep all objects. Else rows of the label array, padded with zeros; of
            more objects the sample draws which ones are kept, and the rest counts as background.
        flip_prob: probability of a mirror image.
        hsv_prob: probability of a colour shift.

    Raises ValueError for fewer than one row.
    """

    def __init__(
        self, max_labels: int | None = None, flip_prob: float = 0.5, hsv_prob: float = 1.0
    ) -> None:
        if max_labels is not None and max_labels < 1:
            raise ValueError(f"max_labels: expected None, or at least 1, got {max_labels}")
        self.max_labels = max_labels
        self.flip_prob = flip_prob
        self.hsv_prob = hsv_prob

    def __call__(
        self,
        image: Image,
        targets: Floats,
        input_dim: tuple[int, int],
        rng: np.random.Generator | None = None,
    ) -> tuple[Floats, Floats]:
        """Make one training input.

        Args:
            image: BGR uint8 (height, width, 3).
            targets: float32 (n, 5), x1 y1 x2 y2 in pixels of ``image``, class.
            input_dim: (height, width) of the input.
            rng: where chance comes from; None for a fresh unseeded generator.

        Returns:
            Float32 (3, height, width) 0..255, and float32 (n, 5) as class, cx, cy, w, h in input
            pixels, n the objects; or ``max_labels``, with zero rows at the end. Objects with a
            side of at most 1 pixel are dropped; where none is left, image and objects come without
            augmentation.
        """
        rng = np.random.default_rng() if rng is None else rng
        use_hsv, use_flip = rng.random(2) < (self.hsv_prob, self.flip_prob)
        _, ratio = fit_size(image.shape[:2], input_dim)
        boxes, classes = targets[:, :4] * ratio, targets[:, 4:5]
        large = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) > 1
        if large.any():
            boxes, classes = targets[large, :4], classes[large]
            if use_hsv:
                image = augment_hsv(image, rng)
            if use_flip:
                image, boxes = flip(image, boxes)
            boxes = boxes * ratio
        img, _ = preproc(image, input_dim)
        if self.max_labels is not None and len(boxes) > self.max_labels:
            # Not the first ones, which in a mosaic are all of its first image.
            kept = np.sort(rng.permutation(len(boxes))[: self.max_labels])
            boxes, classes = boxes[kept], classes[kept]
        n = len(boxes)
        labels = np.zeros((self.max_labels or n, 5), dtype=np.float32)
        labels[:n, :1] = classes
        labels[:n, 1:3] = (boxes[:, :2] + boxes[:, 2:]) / 2
        labels[:n, 3:] = boxes[:, 2:] - boxes[:, :2]
        return img, labels


def label_cap(transform: Any) -> int | None:
    """How many objects of an image a transform keeps, None for all."""
    most = getattr(transform, "max_labels", None)
    return most if isinstance(most, int) else None


class ValTransform:
    """Letterbox only; ``legacy`` adds the RGB order and ImageNet scaling of the oldest weights."""

    def __init__(self, swap: tuple[int, int, int] = _CHW, legacy: bool = False) -> None:
        self.swap = swap
        self.legacy = legacy

    def __call__(self, img: Image, res: Any, input_size: tuple[int, int]) -> tuple[Floats, Floats]:
        """Returns the float32 input (3, height, width) and a placeholder label (1, 5) of zeros.

        ``res``, the ground truth, is not used: evaluation reads it from the data set.
        """
        if not self.legacy:
            return preproc(img, input_size, self.swap)[0], np.zeros((1, 5), dtype=np.float32)
        hwc, _ = preproc(img, input_size, (0, 1, 2))
        hwc = (hwc[..., ::-1] / np.float32(255) - _IMAGENET_MEAN) / _IMAGENET_STD
        out = np.ascontiguousarray(hwc.transpose(self.swap), dtype=np.float32)
        return out, np.zeros((1, 5), dtype=np.float32)
