"""A ``.pt`` of Ultralytics beside our models: counted, exported and timed, evaluated."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolox.bench.cases import Array, Case, OpenedCase, compile_for
from yolox.bench.guest import Guest
from yolox.bench.memory import main
from yolox.export.place import place_of
from yolox.export.runtimes import RUNTIMES
from yolox.models import ModelSpec
from yolox.ultralytics.clock import export
from yolox.ultralytics.detector import as_ordinary, trained_side
from yolox.ultralytics.exported import (
    ExportedDetector,
    file_of,
    metadata_of,
    opened_case,
    predictions,
)
from yolox.ultralytics.files import is_pruned, plans_of, read_detector
from yolox.ultralytics.installed import require_ultralytics
from yolox.utils.checkpoint import file_digest
from yolox.utils.threads import own_threads, set_threads


class DetectorFile(Guest):
    """A detector's ``.pt``, pruned or not."""

    memory_program = "yolox.ultralytics.guest"

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            UserError: see `read_detector`.
        """
        self._model = read_detector(path)
        names: Mapping[int, str] = dict(self._model.names)
        side = trained_side(self._model)
        self.path = path
        self.spec = ModelSpec(
            num_classes=len(names),
            class_names=tuple(str(names[key]) for key in sorted(names)),
            input_size=(side, side),
        )
        self.pruned = is_pruned(self._model)
        self.sha256 = file_digest(path)

    def module(self) -> nn.Module:
        """See `Guest`."""
        module: nn.Module = self._model
        return module

    def network(self) -> nn.Module:
        """See `Guest`."""
        return _Network(as_ordinary(copy.deepcopy(self._model)), self.spec.num_classes)

    def runnable(self, runtime: str, batch: int, size: tuple[int, int], folder: Path) -> Path:
        """See `Guest`."""
        form = RUNTIMES[runtime].exported_as
        if not form:
            return self.path
        folder.mkdir(parents=True, exist_ok=True)
        # It writes beside the file that it is given.
        copied = Path(shutil.copy(self.path, folder / self.path.name))
        return file_of(export(copied, form, size, batch=batch))

    def open(self, case: Case) -> OpenedCase:
        """See `Guest`."""
        return _open(case)

    def prunings(self) -> list[Mapping[str, object]]:
        """See `Guest`."""
        return [{"plan": plan.to_dict()} for plan in plans_of(self._model)]


class _Network(nn.Module):
    """A model in place of one of ours: images as ours take them."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self._classes = model, classes

    def forward(self, x: Tensor) -> Tensor:
        return predictions(self.model(x.flip(1) / 255)[0], self._classes, _keeps(self.model))


class _Plain(nn.Module):
    """A model that gives its decoded predictions alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)[0]
        return out


def _keeps(model: Any) -> bool:
    """Whether a model keeps the best boxes itself."""
    return bool(getattr(model, "end2end", False))


def _open(case: Case) -> OpenedCase:
    """A case of a ``.pt``, or of what their exporter made of it."""
    facts = metadata_of(case.path)
    if facts is not None:
        return ExportedDetector(case.path, facts).open(case)
    require_ultralytics(safely=True)
    place = place_of(case.runtime, case.device, file=False)
    model = as_ordinary(read_detector(case.path)).fuse(verbose=False)
    model = model.requires_grad_(False).to(place, memory_format=torch.channels_last)
    with own_threads():
        set_threads(case.threads)
        plain = _Plain(model)
        forward = compile_for(plain, case, place) if case.runtime == "torch.compile" else plain

        def load(x: Array) -> Tensor:
            return torch.from_numpy(x).to(place)

        def run(images: Tensor) -> Tensor:
            with torch.inference_mode():
                return forward(images.contiguous(memory_format=torch.channels_last))

        opened = opened_case(case, run, len(model.names), "fp32", _keeps(model))
        opened = replace(opened, place=place, queue=place, load=load)
        opened.run(opened.load(np.zeros((case.batch, 3, *case.size), np.float32)))
    return opened


if __name__ == "__main__":
    main(_open)
