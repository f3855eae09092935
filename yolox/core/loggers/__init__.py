"""Where a training run's curves, pictures and best checkpoint go, beside its own folder."""

from yolox.core.loggers.base import RUN_IDS_FILE, Outcome, Pictures, RunInfo, RunLogger, RunLoggers
from yolox.core.loggers.mlflow import Mlflow, MlflowOptions
from yolox.core.loggers.tensorboard import TensorBoard
from yolox.core.loggers.wandb import Wandb, WandbOptions

__all__ = [
    "RUN_IDS_FILE",
    "Mlflow",
    "MlflowOptions",
    "Outcome",
    "Pictures",
    "RunInfo",
    "RunLogger",
    "RunLoggers",
    "TensorBoard",
    "Wandb",
    "WandbOptions",
]
