"""Export: a model as a file for other runtimes, proven against PyTorch before it is kept."""

from yolox.export.onnx import Deployed, ExportError, OnnxSettings, export_onnx
from yolox.export.parity import Parity, measure_parity, sample_scene

__all__ = [
    "Deployed",
    "ExportError",
    "OnnxSettings",
    "Parity",
    "export_onnx",
    "measure_parity",
    "sample_scene",
]
