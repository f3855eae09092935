"""Ultralytics' detectors: pruned here, trained, evaluated and exported by their own program."""

from .detector import detection_loss, prune_detector
from .files import is_pruned, read_detector, save_detector
from .installed import require_ultralytics
from .sparsity import add_sparsity
from .trainer import KeepStructure, PrunedTrainer

__all__ = [
    "KeepStructure",
    "PrunedTrainer",
    "add_sparsity",
    "detection_loss",
    "is_pruned",
    "prune_detector",
    "read_detector",
    "require_ultralytics",
    "save_detector",
]
