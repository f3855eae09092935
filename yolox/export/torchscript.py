"""A detector as a TorchScript file, by tracing."""

from __future__ import annotations

import torch

from yolox.export.graph import deployed
from yolox.export.onnx import quiet
from yolox.export.settings import ExportSettings
from yolox.models import YOLOX

METADATA_FILE = "metadata.json"  # within the archive


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
