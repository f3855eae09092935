"""Exporting many times in little time: graphs are made once, runtimes have one thread."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from yolox.export import ExportSettings, onnx, runtime
from yolox.models import YOLOX

KEPT = 20  # of a few MB each


def mark(model: YOLOX, settings: ExportSettings) -> tuple[object, ...]:
    """All that `yolox.export.onnx.convert` looks at: the same mark, the same graph."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    # OpenVINO has a Mish of its own and rounds weights itself.
    itself = settings.half or any(isinstance(layer, nn.Mish) for layer in model.modules())
    return (
        repr(model),
        model.training,
        digest.digest(),
        settings.format if itself else "",
        *(settings.size, settings.batch_size, settings.dynamic, settings.dynamic_size),
        *(settings.opset, settings.decode, settings.half),
    )


@contextmanager
def kept_graphs() -> Iterator[None]:
    """Convert the same weights with the same settings once: that takes seconds."""
    kept: OrderedDict[object, Any] = OrderedDict()
    convert = onnx.convert

    def once(model: YOLOX, settings: ExportSettings) -> Any:
        key = mark(model, settings)
        if key not in kept:
            kept[key] = convert(model, settings)
        kept.move_to_end(key)
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "convert", once)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Runtimes that choose their threads themselves take one, as PyTorch does in tests.

    Several, in several processes of tests, mostly wait for each other.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("open_onnxruntime", "open_openvino", "open_ncnn"):
            opened = getattr(runtime, name)

            def open_one(path: Path, threads: int | None, *rest: Any, opened: Any = opened) -> Any:
                return opened(path, threads or 1, *rest)

            patch.setattr(runtime, name, open_one)
        yield
