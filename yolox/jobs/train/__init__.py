"""From an Exp to a running training: where it starts, what fine-tuning changes, the trainer."""

from yolox.jobs.train.assemble import build_trainer, trainer_of_command
from yolox.jobs.train.loggers import choose_logger
from yolox.jobs.train.run import official_args, run_trainer
from yolox.jobs.train.start import TrainOptions

__all__ = [
    "TrainOptions",
    "build_trainer",
    "choose_logger",
    "official_args",
    "run_trainer",
    "trainer_of_command",
]
