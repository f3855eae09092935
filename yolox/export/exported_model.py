"""An exported file in its runtime, as a module that detects like the model itself.

Shape suffixes: B images, A anchor points, C classes, N rows that NMS kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolox.export.metadata import ExportInfo
from yolox.export.missing import cause_of
from yolox.export.settings import ExportError
from yolox.models import ModelSpec
from yolox.models.yolo_head import HeadOutput, decode_boxes
from yolox.utils.boxes import xyxy2cxcywh
from yolox.utils.device import CPU

Array = NDArray[np.float32]


class ExportedModel(nn.Module):
    """A file in a runtime, in place of a model in evaluation mode.

    Attributes:
        info: what the file says of itself.
        runtime: one of `RUNTIMES`.
        precision: of the weights and, where it differs, of the arithmetic.
        path: the file.
        place: where the runtime computes.
    """

    def __init__(
        self,
        path: Path,
        runtime: str,
        info: ExportInfo,
        run: Callable[[Array], Array],
        *,
        arithmetic: str = "f32",
        place: torch.device = CPU,
    ):
        super().__init__()
        self.path = path
        self.runtime = runtime
        self.place = place
        self.info = info
        self.precision = info.precision
        if arithmetic != "f32":
            self.precision += f", run in {arithmetic}"
        self._run = run

    def run(self, x: Array) -> Array:
        """The runtime's own output for images (B, 3, H, W) of the file's batch size and size.

        Returns:
            (B, A, 5 + C), decoded or not as `info` says; of a file with NMS, rows (N, 8).

        Raises:
            ExportError: a shape that the file does not take, or the runtime fails.
        """
        for said, given in zip(self.info.input_shape, x.shape, strict=True):
            if said not in (None, given):
                raise ExportError(
                    f"{self.path} takes images of {self.info.input_shape}, got {x.shape}: export "
                    "it for that size, or for any"
                )
        try:
            out = self._run(np.ascontiguousarray(x))
        except Exception as error:  # the runtimes' exceptions have no common class
            raise ExportError(
                f"{self.runtime} fails to run {self.path}: {cause_of(error)}"
            ) from error
        self.info.require_output(out.shape, x.shape, self.path)
        return out

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), any B → decoded predictions (B, A, 5 + C) on the images' device.

        Where the file takes a fixed number of images, the last run is filled up with empty ones.
        Of a file with NMS, A is the largest number of boxes kept of an image; rows of NaN, which
        are no detections, fill the others up.
        """
        images = x.detach().float().cpu().numpy()
        count = self.info.batch_size or len(images)
        outputs = []
        for start in range(0, len(images), count):
            part = images[start : start + count]
            out = torch.from_numpy(self.run(filled_up(part, count)))
            if self.info.nms:
                out = _spread(out, count, self.info)
            outputs.append(self.decode(out, part.shape[-2:])[: len(part)])
        anchors = max(out.shape[1] for out in outputs)
        padded = [
            nn.functional.pad(out, (0, 0, 0, anchors - out.shape[1]), value=torch.nan)
            for out in outputs
        ]
        return torch.cat(padded).to(x.device)

    def spec(self, size: tuple[int, int] | None = None) -> ModelSpec:
        """What a spec says of classes and input size.

        Args:
            size: (height, width) in pixels that images are to be fitted into; the file's own by
                default.

        Raises:
            ExportError: the file takes another size alone.
        """
        info = self.info
        if size not in (None, info.input_size) and not info.dynamic_size:
            asked, own = ("×".join(map(str, sides)) for sides in (size, info.input_size))
            raise ExportError(
                f"images of {asked}, but {self.path} takes {own} alone: leave `size` out, "
                "or export it with dynamic_size"
            )
        return ModelSpec(
            architecture=info.architecture,
            num_classes=info.num_classes,
            class_names=info.class_names,
            input_size=size or info.input_size,
        )

    def nms_loss(self, conf: float, nms: float) -> str:
        """What is missing where detections of such a score and IoU are asked for, a sentence.

        Empty unless the file has NMS of its own, and that keeps less.
        """
        info = self.info
        if not info.nms or (conf >= info.conf_threshold and nms <= info.nms_threshold):
            return ""
        return (
            f"NMS is in {self.path}: it keeps scores of {info.conf_threshold:g} or more and "
            f"overlaps up to IoU {info.nms_threshold:g}, so asking for scores of {conf:g} and IoU "
            f"{nms:g} brings back nothing"
        )

    def decode(self, out_BAK: Tensor, size: Sequence[int]) -> Tensor:
        """What `run` gives for images of a (height, width), its boxes in pixels."""
        if self.info.decoded:
            return out_BAK
        boxes = decode_boxes(HeadOutput(out_BAK, *_grid(size, self.info.strides)))
        return torch.cat((boxes, out_BAK[..., 4:]), dim=-1)


def filled_up(images: Array, count: int) -> Array:
    """Images (B, 3, H, W), B at most `count`, and empty ones: as many as a file takes."""
    return np.concatenate([images, np.zeros((count - len(images), *images.shape[1:]), np.float32)])


def _grid(size: Sequence[int], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Column and row (A, 2), and stride (A,), of each anchor of an image (height, width)."""
    cells, scales = [], []
    for stride in strides:
        rows, columns = (torch.arange(side // stride, dtype=torch.float32) for side in size)
        cells.append(torch.cartesian_prod(rows, columns).flip(1))
        scales.append(torch.full((len(cells[-1]),), float(stride)))
    return torch.cat(cells), torch.cat(scales)


def _spread(rows_N8: Tensor, images: int, info: ExportInfo) -> Tensor:
    """Kept rows as predictions (B, A, 5 + C), the class probability at the row's class."""
    parts = [rows_N8[rows_N8[:, 0] == image, 1:] for image in range(images)]
    most = max(len(part) for part in parts)
    out = torch.full((images, most, 5 + info.num_classes), torch.nan)
    for image, part in enumerate(parts):
        found = torch.zeros(len(part), 5 + info.num_classes)
        found[:, :4] = xyxy2cxcywh(part[:, :4])
        found[:, 4] = part[:, 4]
        found.scatter_(1, 5 + part[:, 6:].long(), part[:, 5:6])
        out[image, : len(part)] = found
    return out
