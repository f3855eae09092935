"""Training: devices, optimizer, steps, resumable state, and the loop."""

from .fabric import make_fabric, outer_launch, processes_here
from .failures import (
    PEER_LOST_STATUS,
    PeerLostError,
    ResourceError,
    explain,
    report_once,
)
from .launch import end_with_parent, is_supervised, supervise
from .optim import build_sgd
from .settings import Regularizer, TrainResult, TrainSettings
from .signals import Interrupted, stoppable
from .step import NonFiniteLossError, resize_batch
from .trainer import Trainer

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
    "report_once",
    "resize_batch",
    "stoppable",
    "supervise",
]
