"""Export: a model as a file for other runtimes, proven against PyTorch before it is kept."""

from yolox.export.convert import export_model, write_model
from yolox.export.graph import Deployed, fold_focus
from yolox.export.metadata import ExportInfo
from yolox.export.parity import Parity, measure_parity, sample_scene
from yolox.export.runtime import RUNTIMES, ExportedModel, is_exported, open_exported
from yolox.export.seal import seal
from yolox.export.settings import FORMATS, ExportError, ExportSettings, optional_packages

__all__ = [
    "FORMATS",
    "RUNTIMES",
    "Deployed",
    "ExportError",
    "ExportInfo",
    "ExportSettings",
    "ExportedModel",
    "Parity",
    "export_model",
    "fold_focus",
    "is_exported",
    "measure_parity",
    "open_exported",
    "optional_packages",
    "sample_scene",
    "seal",
    "write_model",
]
