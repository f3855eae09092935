"""Latency of Ultralytics' models, in the files that its own exporter writes."""

from __future__ import annotations

import copy
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO

from yolox.export.runtime import onnxruntime_options, openvino_options
from yolox.export.settings import ExportError, optional_packages
from yolox.jobs.prune_latency import Clock, LatencySettings, Work
from yolox.pruning.latency.table import ConvLayer, conv_layers
from yolox.ultralytics.data import quiet
from yolox.ultralytics.detector import as_ordinary
from yolox.ultralytics.files import save_detector
from yolox.utils.model_utils import fuse_model
from yolox.utils.printable import printable

CLOCKED = ("torch", "onnxruntime", "openvino")


class DetectorClock(Clock):
    """Detectors of one input size (height, width), timed in a runtime."""

    def __init__(self, size: tuple[int, int], settings: LatencySettings, folder: Path) -> None:
        """Args: `folder`: where exported models may lie while the clock is used."""
        super().__init__(settings)
        if settings.runtime not in CLOCKED:
            raise ExportError(
                f"models of Ultralytics are timed in {', '.join(CLOCKED)}, not in "
                f"{settings.runtime}"
            )
        self._size, self._folder = size, folder
        self._numbers = itertools.count()

    def open(self, model: nn.Module) -> Work:
        """See `Clock`."""
        image = np.random.default_rng(0).uniform(0, 1, (1, 3, *self._size)).astype(np.float32)
        ordinary = as_ordinary(copy.deepcopy(model))
        if self._settings.runtime == "torch":
            x = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
            fused = fuse_model(ordinary).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return partial(fused, x)
        path = self._folder / f"model_{next(self._numbers)}.pt"
        save_detector(ordinary, path)
        file = export(path, "onnx", self._size)
        return open_file(file, image, self._settings)


def export(path: Path, form: str, size: tuple[int, int]) -> Path:
    """The file that Ultralytics' exporter writes beside a ``.pt``, for images (height, width).

    Raises:
        ExportError: a package is missing, or the export fails.
    """
    optional_packages("onnx" if form == "onnx" else form)
    more = {"simplify": False} if form == "onnx" else {}  # that takes another package
    try:
        with quiet():
            written = YOLO(path, task="detect").export(
                format=form, imgsz=list(size), device="cpu", verbose=False, **more
            )
    except Exception as error:  # of many kinds
        cause = " ".join(str(error).split())[:300]
        raise ExportError(f"Ultralytics' export of {path} to {form}: {printable(cause)}") from error
    return Path(written)


def open_file(path: Path, image: Any, settings: LatencySettings) -> Work:
    """One run of an ONNX file on an image (1, 3, H, W) in [0, 1]."""
    if settings.runtime == "openvino":
        (openvino,) = optional_packages("openvino")
        core = openvino.Core()
        options = openvino_options(settings.threads, settings.openvino_precision)
        request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
        return partial(request.infer, [image])
    (onnxruntime,) = optional_packages("onnxruntime")
    session = onnxruntime.InferenceSession(
        path, onnxruntime_options(settings.threads), providers=["CPUExecutionProvider"]
    )
    return partial(session.run, None, {session.get_inputs()[0].name: image})


def layers_of(model: nn.Module, size: tuple[int, int]) -> dict[str, ConvLayer]:
    """The convolutions that run, by their names."""
    return conv_layers(model, torch.zeros(1, 3, *size))
