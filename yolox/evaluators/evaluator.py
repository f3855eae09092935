"""The one inference loop: a model and a loader in, timed detections in original pixels out.

Shape suffixes: B images; A anchors; C classes; k detections of an image; n objects of an image.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from yolox.utils.boxes import postprocess
from yolox.utils.device import synchronize
from yolox.utils.progress import track

__all__ = ["EvalDataset", "EvalSample", "ImageDetections", "Timing", "run_inference"]


class EvalSample(Protocol):
    """An annotated image."""

    @property
    def image_id(self) -> int:
        """Unique within the data set, and what the loader yields as the image's id."""
        ...

    @property
    def name(self) -> str:
        """What messages and metrics call the image."""
        ...

    @property
    def height(self) -> int:
        """Of the original image, pixels."""
        ...

    @property
    def width(self) -> int:
        """Of the original image, pixels."""
        ...

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """float32 (n, 4), xyxy, 0-based pixels of the original image."""
        ...

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """int64 (n,), in 0 .. number of classes - 1."""
        ...

    @property
    def difficult(self) -> npt.NDArray[np.bool_]:
        """VOC's difficult objects, COCO's crowds, bool (n,): neither found nor missed."""
        ...


class EvalDataset(Protocol):
    """What a data set must offer to be evaluated on."""

    @property
    def samples(self) -> Sequence[EvalSample]:
        """The images with their annotations, in the order of the data set."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class index."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageDetections:
    """Detections of one image, by falling score; possibly none.

    Attributes:
        image_id: of the image.
        boxes: float32 (k, 4), xyxy, pixels of the original image, not clipped to it.
        scores: float32 (k,), object × class probability.
        classes: int64 (k,), class indices.
    """

    image_id: int
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Mean times of an evaluation, and how many images they are the mean of.

    Attributes:
        forward_ms: the model, milliseconds an image (of a batch, not of an image alone).
        postprocess_ms: score filter and NMS, milliseconds an image.
        images: images timed. The first batch warms up and is left out unless it is the only one.
    """

    forward_ms: float
    postprocess_ms: float
    images: int


def run_inference(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    num_classes: int,
    img_size: tuple[int, int],
    conf_threshold: float,
    nms_threshold: float,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
) -> tuple[list[ImageDetections], Timing]:
    """Run ``model`` over ``loader`` and return its detections in original pixels.

    The model is in eval mode during the loop; the training flag of each of its modules is as before
    afterwards, also after an error.

    Args:
        model: maps float32 (B, 3, H, W) to decoded predictions (B, A, 5 + num_classes), as
            :func:`yolox.utils.boxes.postprocess` takes them.
        loader: yields (images, anything, sizes, ids). ``sizes`` are the original heights and
            widths, either as (heights, widths), two tensors or arrays (B,), which is what the
            default collate makes of (h, w), or as B pairs (h, w). ``ids`` is (B,) or (B, 1).
            Images were resized by min(H / h, W / w) and padded at the right and at the bottom.
        num_classes: C.
        img_size: (H, W) of the input, pixels.
        conf_threshold: least score kept, in [0, 1].
        nms_threshold: IoU, in [0, 1].
        device: where to run, the model is moved there; None means where the model is.
        autocast: dtype for mixed precision, None for the model's own.

    Returns:
        One :class:`ImageDetections` an image, in the loader's order, and the :class:`Timing`.

    Raises:
        ValueError: when the loader's images are not of ``img_size``, or its tuples do not fit.
    """
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    else:
        device = torch.device(device)
        model.to(device)
    mixed = torch.autocast(device.type, dtype=autocast) if autocast is not None else nullcontext()
    detections: list[ImageDetections] = []
    laps: list[tuple[int, float, float]] = []  # images, forward s, post-process s
    was_training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            for images, _, sizes, ids in track(loader, "Evaluating"):
                heights, widths, image_ids = _image_info(images, sizes, ids, img_size)
                # Before the clock starts: copying the input is the loader's cost.
                images = images.to(device=device, dtype=torch.float32)
                with mixed:
                    prediction, forward_s = _timed(device, partial(model, images))
                rows, postprocess_s = _timed(
                    device,
                    partial(postprocess, prediction, num_classes, conf_threshold, nms_threshold),
                )
                laps.append((len(images), forward_s, postprocess_s))
                for row, height, width, image_id in zip(
                    rows, heights, widths, image_ids, strict=True
                ):
                    ratio = min(img_size[0] / height, img_size[1] / width)
                    detections.append(_to_original(row, ratio, image_id))
    finally:
        for module, training in was_training:
            module.training = training
    return detections, _mean_timing(laps)


def _image_info(
    images: torch.Tensor, sizes: Any, ids: Any, img_size: tuple[int, int]
) -> tuple[list[float], list[float], list[int]]:
    """Original heights, widths and ids of a batch, whichever way it was collated."""
    if tuple(images.shape[-2:]) != tuple(img_size):
        raise ValueError(
            f"images: expected {tuple(img_size)} (height, width), got {tuple(images.shape[-2:])}; "
            "the data set's input size and the evaluator's differ"
        )
    # Two arrays are a column each even when the batch holds two images.
    by_column = (
        isinstance(sizes, (list, tuple))
        and len(sizes) == 2
        and all(isinstance(column, (torch.Tensor, np.ndarray)) for column in sizes)
    )
    if by_column:
        heights, widths = ([float(v) for v in column.reshape(-1)] for column in sizes)
    else:
        heights, widths = ([float(pair[i]) for pair in sizes] for i in (0, 1))
    image_ids = [int(i) for i in torch.as_tensor(ids).reshape(-1)]
    if not len(images) == len(heights) == len(widths) == len(image_ids):
        raise ValueError(
            f"expected a height, a width and an id for each of {len(images)} images, got "
            f"{len(heights)}, {len(widths)} and {len(image_ids)}"
        )
    return heights, widths, image_ids


def _timed(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and wall-clock seconds of ``work``, all of what it queued on the device included."""
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - start


def _to_original(row: torch.Tensor | None, ratio: float, image_id: int) -> ImageDetections:
    array = np.zeros((0, 7), np.float32) if row is None else row.float().cpu().numpy()
    return ImageDetections(
        image_id=image_id,
        boxes=(array[:, :4] / ratio).astype(np.float32),
        scores=array[:, 4] * array[:, 5],
        classes=array[:, 6].astype(np.int64),
    )


def _mean_timing(laps: list[tuple[int, float, float]]) -> Timing:
    if len(laps) > 1:
        laps = laps[1:]
    images = sum(lap[0] for lap in laps)
    per_image = 1000 / max(images, 1)
    return Timing(
        forward_ms=sum(lap[1] for lap in laps) * per_image,
        postprocess_ms=sum(lap[2] for lap in laps) * per_image,
        images=images,
    )
