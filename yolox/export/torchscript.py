"""A detector as a TorchScript file, by tracing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from yolox.export.archive import METADATA_FILE, seal_archive
from yolox.export.graph import deployed
from yolox.export.onnx import quiet
from yolox.export.settings import ExportSettings
from yolox.models import YOLOX


def save(traced: torch.jit.ScriptModule, file: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced model with metadata, sealed."""
    extra = {METADATA_FILE: json.dumps(metadata)}
    torch.jit.save(traced, file, _extra_files=extra)
    seal_archive(file)


def to_torchscript(model: YOLOX, settings: ExportSettings) -> torch.jit.ScriptModule:
    """The traced model. Any batch size and image size pass through it, whatever is asked for."""
    example = torch.zeros(settings.batch_size, 3, *settings.size)
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            deployed(model, decode=settings.decode, rescale=settings.half),
            example,
            check_trace=False,
        )
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced
