"""Detections of tiles put back onto the images that the tiles were cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.utils.boxes import batched_nms

__all__ = ["TiledSample", "merge_tiles", "merge_to_whole"]


class TiledSample(EvalSample, Protocol):
    """An annotated image that was cut into tiles; `image_id` is unique among such images."""

    @property
    def tiles(self) -> Mapping[int, tuple[int, int]]:
        """(x, y) of each tile's top left pixel, by the image_id that its detections bear."""
        ...


Tiled = TypeVar("Tiled", bound=TiledSample)


def merge_tiles(
    detections: Sequence[ImageDetections],
    offsets: Sequence[tuple[int, int]],
    *,
    image_id: int,
    nms_threshold: float,
) -> ImageDetections:
    """The detections of an image from those of its tiles.

    Boxes are moved by their tile's offset; what two tiles both found is found once, by NMS within
    each class. A single tile's detections, which went through NMS, are only moved.

    Args:
        detections: of each tile, in its pixels.
        offsets: (x, y) of each tile's top left pixel in the image.
        image_id: of the result.
        nms_threshold: IoU above which the lower-scored box goes, in [0, 1].

    Raises:
        ValueError: not as many offsets as tiles, or none.
    """
    if not len(detections) == len(offsets) > 0:
        raise ValueError(
            f"expected an offset a tile, got {len(offsets)} for {len(detections)} tiles"
        )
    boxes = np.concatenate(
        [
            entry.boxes + np.array([x, y, x, y], dtype=np.float32)
            for entry, (x, y) in zip(detections, offsets, strict=True)
        ]
    )
    scores = np.concatenate([entry.scores for entry in detections])
    classes = np.concatenate([entry.classes for entry in detections])
    if len(detections) > 1:
        keep = batched_nms(
            torch.from_numpy(boxes),
            torch.from_numpy(scores),
            torch.from_numpy(classes),
            nms_threshold,
        ).numpy()
        boxes, scores, classes = boxes[keep], scores[keep], classes[keep]
    return ImageDetections(image_id=image_id, boxes=boxes, scores=scores, classes=classes)


def merge_to_whole(
    wholes: Sequence[Tiled], detections: Sequence[ImageDetections], nms_threshold: float
) -> list[tuple[Tiled, ImageDetections]]:
    """Each whole image with its detections, for the metrics.

    Ground truth is the whole image's own: an object that several tiles show counts once, with the
    box that it has there.

    Args:
        wholes: as `yolox.data.tiles.whole_images` reads them.
        detections: one entry a tile, in the tile's pixels.
        nms_threshold: IoU, in [0, 1].

    Raises:
        ValueError: detections of images that are no tile of a whole one, or a tile without entry.
    """
    by_tile = {entry.image_id: entry for entry in detections}
    tiles = {tile for whole in wholes for tile in whole.tiles}
    if tiles != set(by_tile):
        raise ValueError(
            f"expected an entry for each of {len(tiles)} tiles; without one: "
            f"{sorted(tiles - set(by_tile))[:5]}; of no whole image: "
            f"{sorted(set(by_tile) - tiles)[:5]}"
        )
    return [
        (
            whole,
            merge_tiles(
                [by_tile[tile] for tile in whole.tiles],
                list(whole.tiles.values()),
                image_id=whole.image_id,
                nms_threshold=nms_threshold,
            ),
        )
        for whole in wholes
    ]
