"""Training: devices, optimizer, steps, resumable state, and the loop."""

from yolox.core.fabric import make_fabric, outer_launch, processes_here
from yolox.core.failures import (
    PEER_LOST_STATUS,
    PeerLostError,
    ResourceError,
    explain,
    told_once,
)
from yolox.core.launch import end_with_parent, is_supervised, supervise
from yolox.core.optim import build_sgd
from yolox.core.settings import Regularizer, TrainResult, TrainSettings
from yolox.core.signals import Interrupted, stoppable
from yolox.core.step import NonFiniteLossError, resize_batch
from yolox.core.trainer import Trainer

__all__ = [
    "PEER_LOST_STATUS",
    "Interrupted",
    "NonFiniteLossError",
    "PeerLostError",
    "Regularizer",
    "ResourceError",
    "TrainResult",
    "TrainSettings",
    "Trainer",
    "build_sgd",
    "end_with_parent",
    "explain",
    "is_supervised",
    "make_fabric",
    "outer_launch",
    "processes_here",
    "resize_batch",
    "stoppable",
    "supervise",
    "told_once",
]
