"""Export: a model as a file for other runtimes, proven against PyTorch before it is kept."""

from .convert import export_model, write_model
from .exported_model import ExportedModel
from .graph import Deployed, fold_focus
from .metadata import ExportInfo
from .parity import Parity, measure_parity, sample_scene
from .runtime import is_exported, open_exported
from .runtimes import RUNTIMES
from .seal import seal
from .settings import FORMATS, ExportError, ExportSettings, optional_packages

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
