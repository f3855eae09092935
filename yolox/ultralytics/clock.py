"""Latency of Ultralytics' models, in the files that its own exporter writes."""

from __future__ import annotations

import copy
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO

from yolox.export.sessions import open_onnxruntime, open_openvino
from yolox.export.settings import ExportError, optional_packages
from yolox.jobs.prune_latency import Clock, LatencySettings, Work
from yolox.pruning.latency.table import ConvLayer, conv_layers
from yolox.ultralytics.data import quiet
from yolox.ultralytics.detector import as_ordinary
from yolox.ultralytics.files import save_detector
from yolox.ultralytics.messages import cause_of
from yolox.utils.model_utils import fuse_model

CLOCKED = ("torch", "onnxruntime", "openvino")
_EXPORTERS = {"onnx": ("onnx",), "openvino": ("openvino",), "ncnn": ("ncnn", "pnnx")}


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
            x = torch.from_numpy(image).to(self._place, memory_format=torch.channels_last)
            fused = fuse_model(ordinary).to(self._place, memory_format=torch.channels_last)  # type: ignore[call-overload]
            return partial(fused, x)
        path = self._folder / f"model_{next(self._numbers)}.pt"
        save_detector(ordinary, path)
        file = export(path, "onnx", self._size)
        return open_file(file, image, self._settings)


def export(path: Path, form: str, size: tuple[int, int], *, batch: int = 1) -> Path:
    """The file or folder that Ultralytics' exporter writes beside a ``.pt``.

    Args:
        path: of the ``.pt``.
        form: format, as Ultralytics names it.
        size: (height, width) of the images.
        batch: images a run.

    Raises:
        ExportError: a package is missing, or the export fails.
    """
    optional_packages(*_EXPORTERS.get(form, ()))
    more = {"simplify": False} if form == "onnx" else {}  # that takes another package
    try:
        with quiet(), _silent_programs():
            written = YOLO(path, task="detect").export(
                format=form, imgsz=list(size), batch=batch, device="cpu", verbose=False, **more
            )
    except Exception as error:  # of many kinds
        cause = cause_of(error)
        raise ExportError(f"Ultralytics' export of {path} to {form}: {cause}") from error
    return Path(written)


@contextmanager
def _silent_programs() -> Iterator[None]:
    """Within it, programs that are started, such as pnnx, write no messages."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def open_file(path: Path, image: Any, settings: LatencySettings) -> Work:
    """One run of an ONNX file on an image (1, 3, H, W) in [0, 1]."""
    if settings.runtime == "openvino":
        session = open_openvino(path, settings.threads, settings.openvino_precision)
    else:
        session = open_onnxruntime(path, settings.threads, settings.runtime, settings.place)
    return partial(session.run, image)


def layers_of(model: nn.Module, size: tuple[int, int]) -> dict[str, ConvLayer]:
    """The convolutions that run, by their names."""
    return conv_layers(model, torch.zeros(1, 3, *size))
