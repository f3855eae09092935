"""A checkpoint or an exported file, and pictures in any form → detections.

>>> detector = yolox.load("best_ckpt.pth")
>>> for found in detector.predict("photos/"):
...     print(found.path, found.boxes, found.scores, found.class_names)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray

from yolox.data import COCO_CLASSES, ValTransform
from yolox.data.datasets.decoding import read_image
from yolox.data.errors import DataError
from yolox.data.sources import Camera, Frame, Images, Source, open_source
from yolox.data.tiles import Window, tile_windows
from yolox.evaluators import ImageDetections
from yolox.evaluators.tiled import merge_tiles
from yolox.export import is_exported, open_exported
from yolox.export.runtime import tell_program
from yolox.models import load_model
from yolox.utils.boxes import postprocess
from yolox.utils.choices import CONF, NMS, TILE_OVERLAP
from yolox.utils.device import default_device
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import write_bytes
from yolox.utils.model_utils import fuse_model
from yolox.utils.visualize import vis

BATCH_SIZE = 8
TILE_BATCH = 4  # tiles a forward pass


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
        """The image, BGR uint8 (height, width, 3); a file is read again."""
        if self._pixels is not None:
            return self._pixels
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


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A model with what it takes to detect with it; `load` makes one of a file.

    Attributes:
        model: in evaluation mode, where it is to run; or an exported file.
        size: (height, width) of its input, pixels.
        num_classes: of the model.
        conf: least score of a detection, in [0, 1].
        nms: IoU of NMS, in [0, 1].
        names: class names, or empty where they are unknown.
        legacy: input of the oldest weights: RGB, scaled as for ImageNet.
        autocast: dtype for mixed precision, None for the model's own.
    """

    model: torch.nn.Module
    size: tuple[int, int]
    num_classes: int
    conf: float
    nms: float
    names: tuple[str, ...] = ()
    legacy: bool = False
    autocast: torch.dtype | None = None

    def predict(
        self,
        source: Any,
        *,
        batch_size: int = BATCH_SIZE,
        tile: int | None = None,
        overlap: int = TILE_OVERLAP,
    ) -> list[Prediction]:
        """Detect in all images of a source; see `stream` for the arguments.

        Raises:
            UserError: as `stream`; or a camera, which has no end.
        """
        opened = open_source(source)
        if isinstance(opened, Camera):
            raise UserError("a camera has no end: take its pictures one by one with stream()")
        found = self.frames(opened, batch_size=batch_size, tile=tile, overlap=overlap)
        # Image files are read again when they are wanted; all of a folder would not fit in memory.
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
            images, postprocess(prediction, self.num_classes, self.conf, self.nms), strict=True
        ):
            array = np.empty((0, 7), np.float32) if rows is None else rows.float().cpu().numpy()
            array[:, :4] /= min(self.size[0] / image.shape[0], self.size[1] / image.shape[1])
            found.append(array)
        return found

    def detect_whole(self, image: NDArray[np.uint8]) -> ImageDetections:
        """Detections of a BGR image of any size, shown to the network at once."""
        return _as_detections(self.detect([image])[0])

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


def load(
    source: str | Path,
    *,
    conf: float | None = None,
    nms: float | None = None,
    size: int | tuple[int, int] | None = None,
    device: str | torch.device = "auto",
    half: bool = False,
    fuse: bool = False,
    legacy: bool = False,
    names: Sequence[str] = (),
) -> Detector:
    """A detector from a checkpoint, dense or pruned, or from a file exported from one.

    Args:
        source: a checkpoint, the name of published weights as ``yolox_s``, or an exported file.
        conf: least score of a detection, in [0, 1]; 0.3 by default, or the exported file's own.
        nms: IoU above which the weaker of two boxes of a class goes, in [0, 1]; 0.45 by default, or
            the exported file's own.
        size: side, or (height, width), of the network's input in pixels, multiples of 32; that of
            the file by default.
        device: where a checkpoint runs; ``auto`` takes a GPU where there is one. Exported files run
            on the CPU.
        half: mixed precision of a checkpoint: fp16 on a GPU, bf16 on a CPU.
        fuse: fold batch norms into their convolutions.
        legacy: input scaling of weights before YOLOX 0.2.
        names: class names of a file that has none; of 80 unnamed classes COCO's are taken.

    Raises:
        UserError: no such file, a damaged one, or arguments that do not go with it.
    """
    for what, value in (("conf", conf), ("nms", nms)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{what} must be in [0, 1], got {value}")
    wanted = (size, size) if isinstance(size, int) else size
    if wanted and (len(wanted) != 2 or any(side < 32 or side % 32 for side in wanted)):
        raise UserError(f"size must be multiples of 32, got {size}")
    if is_exported(source):
        asked = {"half": half, "fuse": fuse, "device": str(device) not in ("auto", "cpu")}
        return _load_exported(Path(source), conf, nms, wanted, names, legacy, asked)
    where = default_device() if device == "auto" else torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device}: PyTorch finds no GPU here, use cpu")
    loaded = load_model(resolve_weights(Path(source)))
    model: torch.nn.Module = fuse_model(loaded.model) if fuse else loaded.model
    dtype = torch.float16 if where.type == "cuda" else torch.bfloat16
    return Detector(
        model=model.to(where, memory_format=torch.channels_last),  # type: ignore[call-overload]
        size=wanted or loaded.spec.input_size,
        num_classes=loaded.spec.num_classes,
        conf=CONF if conf is None else conf,
        nms=NMS if nms is None else nms,
        names=_names(source, loaded.spec.class_names, names, loaded.spec.num_classes),
        legacy=legacy,
        autocast=dtype if half else None,
    )


def _load_exported(
    path: Path,
    conf: float | None,
    nms: float | None,
    size: tuple[int, int] | None,
    names: Sequence[str],
    legacy: bool,
    asked: dict[str, bool],
) -> Detector:
    if given := [name for name, value in asked.items() if value]:
        raise UserError(
            f"{' and '.join(given)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime on the CPU; leave them out, or give the checkpoint"
        )
    model = open_exported(path)
    tell_program(path)
    info, spec = model.info, model.spec(size)
    detector = Detector(
        model=model,
        size=spec.input_size,
        num_classes=spec.num_classes,
        conf=info.conf_threshold if conf is None else conf,
        nms=info.nms_threshold if nms is None else nms,
        names=_names(path, spec.class_names, names, spec.num_classes),
        legacy=legacy,
    )
    if loss := model.nms_loss(detector.conf, detector.nms):
        logger.warning(loss)
    return detector


def _names(
    source: str | Path, own: Sequence[str], given: Sequence[str], count: int
) -> tuple[str, ...]:
    """Class names to show; empty, with a warning, where nothing tells them."""
    if own:
        return tuple(own)
    if len(given) == count:
        return tuple(given)
    names = tuple(COCO_CLASSES) if count == len(COCO_CLASSES) else ()
    logger.warning(
        f"{source} does not name its {count} classes: "
        f"{'COCO names in the usual order' if names else 'numbers'} are shown; to name them, "
        "give `names`, or write a file that has them: `yolox.exp.follow.with_names` "
        f"`checkpoint={str(source)!r}`"
    )
    return names


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
    for start in range(0, len(windows), TILE_BATCH):
        yield [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows[start : start + TILE_BATCH]]


def _as_detections(rows: NDArray[np.float32]) -> ImageDetections:
    return ImageDetections(
        image_id=0,
        boxes=rows[:, :4],
        scores=rows[:, 4] * rows[:, 5],
        classes=rows[:, 6].astype(np.int64),
    )
