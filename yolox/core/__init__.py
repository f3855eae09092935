"""Training: devices, optimizer, steps, resumable state, and the loop."""

from yolox.core.fabric import make_fabric
from yolox.core.optim import build_sgd
from yolox.core.step import NonFiniteLossError
from yolox.core.trainer import Trainer, TrainResult, TrainSettings

__all__ = [
    "NonFiniteLossError",
    "TrainResult",
    "TrainSettings",
    "Trainer",
    "build_sgd",
    "make_fabric",
]
