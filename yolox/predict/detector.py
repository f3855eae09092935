"""Detection in images from any source, batch by batch or tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yolox.data import ValTransform
from yolox.data.errors import DataError
from yolox.data.sources import Camera, Frame, Images, Source, Video, open_source
from yolox.data.tiles import Window, tile_windows
from yolox.evaluators import ImageDetections
from yolox.evaluators.tiled import merge_tiles
from yolox.predict.prediction import Prediction
from yolox.utils.boxes import postprocess
from yolox.utils.choices import TILE_OVERLAP
from yolox.utils.errors import UserError

BATCH_SIZE = 8
TILE_BATCH_SIZE = 4  # tiles a forward pass


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A model with everything that detection needs. `load` makes one from a file.

    Attributes:
        model: the model in evaluation mode, on its device; or an exported file.
        size: (height, width) of its input in pixels.
        num_classes: number of classes of the model.
        conf: lowest score of a detection, in [0, 1].
        nms: IoU threshold of NMS, in [0, 1].
        names: class names, or empty if they are unknown.
        legacy: whether images are RGB and scaled as for ImageNet, for the oldest weights.
        autocast: dtype of mixed precision, or None for the model's own.
        max_candidates: number of boxes of an image, those of the highest scores, that NMS chooses
            from; None for all of them.
    """

    model: torch.nn.Module
    size: tuple[int, int]
    num_classes: int
    conf: float
    nms: float
    names: tuple[str, ...] = ()
    legacy: bool = False
    autocast: torch.dtype | None = None
    max_candidates: int | None = None

    def predict(
        self,
        source: Any,
        *,
        batch_size: int = BATCH_SIZE,
        tile: int | None = None,
        overlap: int = TILE_OVERLAP,
    ) -> list[Prediction]:
        """Detect in all images of a source; see `stream` for the arguments.

        Pixels of files are not kept, since those of a folder or a video would not fit in memory.
        An image file is read again where they are wanted; of a video's frames they are gone:
        `stream` hands each frame on with them.

        Raises:
            UserError: as `stream`; or a camera, which has no end.
        """
        opened = open_source(source)
        if isinstance(opened, Camera):
            raise UserError("a camera has no end: take its pictures one by one with stream()")
        found = self.frames(opened, batch_size=batch_size, tile=tile, overlap=overlap)
        if isinstance(opened, Video):
            return [replace(p, _pixels=None, _is_frame=True) for p in found]
        forget = isinstance(opened, Images)
        return [replace(p, _pixels=None) if forget and p.path else p for p in found]

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = BATCH_SIZE,
        tile: int | None = None,
        overlap: int = TILE_OVERLAP,
    ) -> Iterator[Prediction]:
        """Detect in the images of a source, each handed on as soon as its batch is done.

        Args:
            source: an image file, a folder (with all images below it), a pattern, a video file, a
                stream's address, a camera's number; an array, BGR uint8 (height, width, 3); a PIL
                image, as it is, not turned; or a list of files, arrays and PIL images.
            batch_size: images a forward pass; a camera's come one by one.
            tile: side in pixels of the tiles that each image is shown in, None for the whole image.
            overlap: of neighbouring tiles, pixels.

        Raises:
            UserError: no such source; at the end, files that could not be decoded, or a video that
                ends early.
        """
        return self.frames(open_source(source), batch_size=batch_size, tile=tile, overlap=overlap)

    def frames(
        self,
        source: Source,
        *,
        batch_size: int = BATCH_SIZE,
        tile: int | None = None,
        overlap: int = TILE_OVERLAP,
    ) -> Iterator[Prediction]:
        """As `stream`, of an opened source."""
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        if tile is not None and tile < 1:
            raise UserError(f"tile must be at least 1, got {tile}")
        if tile is not None and not 0 <= overlap < tile:
            raise UserError(f"overlap must be from 0 to {tile - 1} for tiles of {tile}: {overlap}")
        frames = iter(source)
        # An error of the source must not swallow the images that came before it.
        late: list[DataError] = []
        while batch := _take(frames, 1 if isinstance(source, Camera) else batch_size, late):
            if tile is None:
                rows = self.detect([frame.image for frame in batch])
                found = [_as_detections(row) for row in rows]
            else:
                found = [self.detect_tiled(frame.image, tile, overlap) for frame in batch]
            yield from map(self._prediction, batch, found)
        if late:
            raise late[0]

    def _prediction(self, frame: Frame, found: ImageDetections) -> Prediction:
        height, width = frame.image.shape[:2]
        return Prediction(
            boxes=found.boxes.clip(0, np.array([width, height, width, height], np.float32)),
            scores=found.scores,
            classes=found.classes,
            names=self.names,
            size=(height, width),
            path=frame.path,
            name=frame.name,
            number=frame.number,
            _pixels=frame.image,
        )

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Detections (k, 7) of each BGR image of a batch, by falling score.

        Columns: x1, y1, x2, y2 in the image's own pixels, obj, class score, class.
        """
        transform = ValTransform(legacy=self.legacy)
        pixels = np.stack([transform(image, None, self.size)[0] for image in images])
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with self._precision(device):
            prediction = self.model(batch)
        found = []
        for image, rows in zip(
            images,
            postprocess(
                prediction,
                self.num_classes,
                self.conf,
                self.nms,
                max_candidates=self.max_candidates,
            ),
            strict=True,
        ):
            array = np.empty((0, 7), np.float32) if rows is None else rows.float().cpu().numpy()
            array[:, :4] /= min(self.size[0] / image.shape[0], self.size[1] / image.shape[1])
            found.append(array)
        return found

    def detect_tiled(self, image: NDArray[np.uint8], tile: int, overlap: int) -> ImageDetections:
        """Detections of a BGR image of any size, shown to the network tile by tile.

        Tiles are those of :func:`yolox.data.tiles.tile_windows`, and their detections are merged
        as evaluation on whole images merges them.
        """
        windows = tile_windows(image.shape[0], image.shape[1], tile, overlap)
        found = [
            _as_detections(rows)
            for batch in _batches(image, windows)
            for rows in self.detect(batch)
        ]
        return merge_tiles(
            found, [window[:2] for window in windows], image_id=0, nms_threshold=self.nms
        )

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


def _take(frames: Iterator[Frame], number: int, late: list[DataError]) -> list[Frame]:
    """The next frames, at most so many; what the source complains of goes into `late`."""
    batch: list[Frame] = []
    try:
        for frame in islice(frames, number):
            batch.append(frame)
    except DataError as error:
        late.append(error)
    return batch


def _batches(
    image: NDArray[np.uint8], windows: Sequence[Window]
) -> Iterator[list[NDArray[np.uint8]]]:
    for start in range(0, len(windows), TILE_BATCH_SIZE):
        yield [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows[start : start + TILE_BATCH_SIZE]]


def _as_detections(rows: NDArray[np.float32]) -> ImageDetections:
    return ImageDetections(
        image_id=0,
        boxes=rows[:, :4],
        scores=rows[:, 4] * rows[:, 5],
        classes=rows[:, 6].astype(np.int64),
    )
