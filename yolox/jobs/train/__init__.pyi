"""From an Exp to a running training: where it starts, what fine-tuning changes, the trainer."""

from .assemble import build_trainer, trainer_of_command
from .loggers import choose_logger
from .run import official_args, run_trainer
from .start import TrainOptions

__all__ = [
    "TrainOptions",
    "build_trainer",
    "choose_logger",
    "official_args",
    "run_trainer",
    "trainer_of_command",
]
