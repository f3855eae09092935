"""From a checkpoint and an Exp to an int8 file, with its AP before and after."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from loguru import logger
from rich.table import Table
from torch import Tensor, nn

from yolox.exp.yolox_base import Exp
from yolox.export import ExportError, ExportSettings, open_exported
from yolox.export.convert import placing
from yolox.export.quantize import (
    MAX_KEPT_RATIO,
    QuantizationError,
    Quantizer,
    QuantizeSettings,
    require_packages,
    write_graph,
)
from yolox.export.quantize_layers import Attempt, find_fewest, rank_layers
from yolox.export.quantize_onnx import OnnxQuantizer
from yolox.export.quantize_openvino import OpenvinoQuantizer
from yolox.export.settings import SUFFIXES
from yolox.models import LoadedModel
from yolox.utils.choices import CALIBRATION_IMAGES
from yolox.utils.files import require_writable
from yolox.utils.scratch import scratch_folder
from yolox.utils.timing import compared, interleave, tell_unsteady

RANKING_IMAGES = 4
LATENCY_SECONDS = 20.0  # that timing before and after may take

Evaluate = Callable[[nn.Module], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class FileFigures:
    """An exported file on this machine.

    Attributes:
        ap50_95, ap50: in its own runtime.
        file_bytes: of all its files.
        latency_ms: median of one image.
    """

    ap50_95: float
    ap50: float
    file_bytes: int
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class QuantizeRecord:
    """What a quantization gave.

    Attributes:
        output: the int8 file.
        before, after: the float and the int8 file.
        kept: layers in float, the most harmful first; the prediction convolutions are too.
        layers: how many could be quantized.
        attempts: numbers of layers in float that were tried, with their AP50-95.
        met: whether AP50-95 falls by no more than asked.
    """

    output: Path
    before: FileFigures
    after: FileFigures
    kept: tuple[str, ...]
    layers: int
    attempts: tuple[Attempt, ...]
    met: bool

    @property
    def drop(self) -> float:
        """AP50-95 lost; negative where it rose."""
        return self.before.ap50_95 - self.after.ap50_95

    def table(self, title: str) -> Table:
        """Both files side by side."""
        table = Table(title=title)
        for column in ("", "AP50-95", "AP50", "file MB", "latency ms"):
            table.add_column(column, justify="left" if not column else "right")
        old, new = self.before, self.after
        for label, row in (("float32", old), ("int8", new)):
            size, time = row.file_bytes / 1e6, row.latency_ms
            cells = (f"{row.ap50_95:.4f}", f"{row.ap50:.4f}", f"{size:.2f}", f"{time:.2f}")
            table.add_row(label, *cells)
        table.add_row(
            "change",
            f"{new.ap50_95 - old.ap50_95:+.4f}",
            f"{new.ap50 - old.ap50:+.4f}",
            f"{new.file_bytes / old.file_bytes:.0%} of it",
            compared(old.latency_ms, new.latency_ms),
        )
        return table


def calibration_images(exp: Exp, count: int = CALIBRATION_IMAGES) -> list[Tensor]:
    """Training images of an Exp, letterboxed as in evaluation, float32 (1, 3, H, W) each.

    Raises:
        QuantizationError: there are fewer with objects than `count`.
    """
    images = [image for image, _ in exp.calibration_batches(count, 1)]
    if len(images) < count:
        raise QuantizationError(
            f"{count} calibration images were asked for, and the training split has {len(images)} "
            f"with objects: `calibration_images={max(len(images), 1)}` takes them all, and more "
            "training data would make better ranges"
        )
    return images


@dataclass(frozen=True, kw_only=True)
class QuantizeJob:
    """A model to quantize, and where the file goes.

    Attributes:
        loaded: dense or pruned; not touched.
        source_sha256: of its checkpoint, for the record.
        output: file to write.
        settings: how.
        size: input height and width in pixels.
        dynamic: any number of images a run.
        images: to calibrate on, see `calibration_images`.
        evaluate: AP50-95 and AP50 of a module that detects.
    """

    loaded: LoadedModel
    source_sha256: str
    output: Path
    settings: QuantizeSettings
    size: tuple[int, int]
    dynamic: bool = False
    images: Sequence[Tensor]
    evaluate: Evaluate

    def run(self) -> QuantizeRecord:
        """Quantize, put layers back to float as far as AP asks for it, write, measure.

        Raises:
            QuantizationError: AP falls by more than allowed however many layers are in float;
                nothing is written then, unless the settings say so.
            ExportError: a package is missing, or the place cannot be written to.
        """
        require_packages(self.settings.format)
        target = ExportSettings(
            format=self.settings.format,
            size=self.size,
            dynamic=self.dynamic,
            decode=True,
            slim=True,
        )
        # What cannot be written is refused before the work.
        target.beside(self.output)
        require_writable(self.output.parent, ExportError)
        with scratch_folder() as folder:
            return self._run(folder, target)

    def _run(self, folder: Path, target: ExportSettings) -> QuantizeRecord:
        suffix = SUFFIXES[target.format][0]
        logger.info("exporting in float32")
        graph = write_graph(self.loaded, folder / "graph.onnx", target, self.source_sha256)
        logger.info(f"calibrating on {len(self.images)} training images")
        quantizer = self._quantizer(graph, target, folder)
        before = folder / f"float{suffix}"
        quantizer.write_float(before)
        old = self.evaluate(open_exported(before))
        floor = old[0] - self.settings.max_drop
        logger.info(f"AP50-95 in float32 {old[0]:.4f}, to be at least {floor:.4f} in int8")
        tries = _Tries(self, quantizer, folder, suffix)
        search = find_fewest(tries.measure, int(MAX_KEPT_RATIO * len(quantizer.layers)), floor)
        kept, new = search.chosen.kept, tries.measured[search.chosen.kept]
        if not search.met and not self.settings.keep_anyway:
            raise QuantizationError(
                f"AP50-95 falls from {old[0]:.4f} to {new[0]:.4f} at best, with {kept} of "
                f"{len(quantizer.layers)} layers in float, more than {self.settings.max_drop:g}, "
                f"so {self.output} was not written: allow a larger `max_drop`, calibrate on more "
                "images, or take that file with `keep_anyway`"
            )
        candidate = tries.file(kept)
        layers = tries.ranked[:kept]
        facts = {
            "method": self.settings.calibration,
            "calibration_images": len(self.images),
            "float_layers": layers,
            "ap50_95": {"fp32": old[0], "int8": new[0]},
            "ap50": {"fp32": old[1], "int8": new[1]},
        }
        with placing(self.output, target) as file:
            quantizer.describe(candidate, file, {"quantization": json.dumps(facts)})
        times = _latency([before, self.output], self.images[0])
        figures = [
            FileFigures(ap50_95=ap[0], ap50=ap[1], file_bytes=_bytes(path, target), latency_ms=time)
            for ap, path, time in zip((old, new), (before, self.output), times, strict=True)
        ]
        return QuantizeRecord(
            output=self.output,
            before=figures[0],
            after=figures[1],
            kept=tuple(layers),
            layers=len(quantizer.layers),
            attempts=search.attempts,
            met=search.met,
        )

    def _quantizer(self, graph: Path, target: ExportSettings, folder: Path) -> Quantizer:
        if target.format == "onnx":
            return OnnxQuantizer(
                graph, self.images, self.settings.calibration, target.input_name, folder
            )
        return OpenvinoQuantizer(graph, self.images, self.settings.calibration)


class _Tries:
    """Files with ever other numbers of layers in float, each measured.

    Attributes:
        measured: AP50-95 and AP50 by number of layers in float.
        ranked: layers, the most harmful first; empty until one has to stay in float.
    """

    def __init__(self, job: QuantizeJob, quantizer: Quantizer, folder: Path, suffix: str) -> None:
        self._job = job
        self._quantizer = quantizer
        self._folder = folder
        self._suffix = suffix
        self.measured: dict[int, tuple[float, float]] = {}
        self.ranked: list[str] = []

    def file(self, kept: int) -> Path:
        """Of so many layers in float."""
        return self._folder / f"int8_{kept}{self._suffix}"

    def measure(self, kept: int) -> float:
        """Write and evaluate the file; returns AP50-95."""
        if kept and not self.ranked:
            images = torch.cat(list(self._job.images[:RANKING_IMAGES]))
            logger.info(f"ranking {len(self._quantizer.layers)} layers by what rounding them does")
            found = rank_layers(self._job.loaded.model, self._quantizer.layers, images)
            self.ranked = [layer for layer, _ in found]
        self._quantizer.write(self.file(kept), self.ranked[:kept])
        self.measured[kept] = self._job.evaluate(open_exported(self.file(kept)))
        ap = self.measured[kept][0]
        logger.info(f"int8 with {kept} of {len(self._quantizer.layers)} layers in float: {ap:.4f}")
        return ap


def _latency(files: Sequence[Path], image: Tensor) -> list[float]:
    """Median milliseconds of one image in each file, by its own runtime's choice of threads."""
    models = [open_exported(file) for file in files]
    x = image.numpy()
    works = [partial(model.run, x) for model in models]
    times = interleave(works, at_most=LATENCY_SECONDS)
    tell_unsteady(zip(("float32", "int8"), times, strict=True))
    return [statistics.median(record) for record in times]


def _bytes(file: Path, settings: ExportSettings) -> int:
    return sum(file.with_suffix(suffix).stat().st_size for suffix in SUFFIXES[settings.format])
