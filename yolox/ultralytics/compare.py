"""Figures of several files of Ultralytics, measured alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yolox.jobs.prune_latency import LatencySettings
from yolox.pruning import ModelFigures
from yolox.ultralytics.clock import DetectorClock
from yolox.ultralytics.data import average_precision, read_data, require_classes
from yolox.utils.device import resolve_device
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.scratch import scratch_folder

EVAL_BATCH = 16


def compare_files(
    models: Sequence[Any],
    paths: Sequence[Path],
    labels: Sequence[str],
    size: tuple[int, int],
    settings: LatencySettings,
    data: str | None = None,
) -> list[ModelFigures]:
    """A row a model: latency in turns, AP by Ultralytics' validator where there is a data set.

    Args:
        models: detectors as they were read.
        paths: their files.
        labels: their names.
        size: (height, width) of the images.
        settings: what the latency is measured in.
        data: data set as Ultralytics takes it.

    Raises:
        UserError: a data set of other classes.
        ExportError: the runtime is not installed, or does not take one of them.
    """
    precisions: list[tuple[float | None, float | None]] = [(None, None)] * len(models)
    if data is not None:
        facts, device = read_data(data), resolve_device(settings.device)
        for model in models:
            require_classes(model, facts, data)
        precisions = [average_precision(m, data, size[0], EVAL_BATCH, device) for m in models]
    with scratch_folder() as folder:
        clock = DetectorClock(size, settings, folder)
        times = clock.time([clock.open(model) for model in models])
    image = torch.zeros(1, 3, *size)
    return [
        ModelFigures(
            label=label,
            params=count_params(model),
            macs=count_macs(model, image)[""],
            file_bytes=path.stat().st_size,
            latency_ms=latency,
            ap50_95=ap,
            ap50=ap50,
        )
        for label, path, model, latency, (ap, ap50) in zip(
            labels, paths, models, times, precisions, strict=True
        )
    ]
