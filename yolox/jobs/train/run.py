"""A training run from its trainer, and what the official API has a recipe build that of."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.core import Trainer, TrainResult
from yolox.exp import Exp
from yolox.jobs.train.start import TrainOptions
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.locks import claimed
from yolox.utils.printable import printable


def run_trainer(
    trainer: Trainer, exp: Exp, *, log_to: Callable[[Path], None] | None = None
) -> TrainResult:
    """Claim the run's folder, say what is trained, and train.

    Args:
        trainer: runs to the last epoch.
        exp: that the trainer was made from.
        log_to: is told the folder, once it is this run's.

    Raises:
        CheckpointError: another run writes into the folder.
    """
    folder = trainer.settings.output_dir
    # The log is of the run too: claimed before a line of another one's gets into it.
    first = trainer.fabric.is_global_zero
    with claimed(folder, CheckpointError) if first else nullcontext():
        if log_to is not None:
            log_to(folder)
        logger.info(
            f"{exp.exp_name}: {exp.num_classes} classes "
            f"({', '.join(map(printable, exp.class_names))}), "
            f"{len(trainer.image_names)} training images, {trainer.settings.max_epoch} epochs, "
            f"input {_sizes(exp, trainer.recipe)}, "
            f"{trainer.fabric.world_size} × {trainer.fabric.device.type}, precision "
            f"{trainer.recipe['precision']}, output in {folder}"
        )
        return trainer.train()


def official_args(
    options: TrainOptions, *, devices: int | None = None, device: str = "auto"
) -> argparse.Namespace:
    """What `Exp.get_trainer` is given, which an Exp file may override: the flags of a command.

    Args:
        options: that become flags.
        devices: processes on this machine; by default all GPUs, or 1 on the CPU.
        device: that they train on.
    """
    return argparse.Namespace(
        ckpt=options.checkpoint,
        resume=options.resume,
        start_epoch=options.start_epoch,
        batch_size=options.batch_size,
        experiment_name=options.name,
        distill=options.teacher,
        act=options.act,
        cache=options.cache,
        run_logger=options.run_logger,
        overwrite=options.overwrite,
        control=options.control,
        save_every=options.save_every,
        devices=devices,
        device=device,
        num_machines=1,
        machine_rank=0,
        dist_url=None,
        dist_backend=None,
        precision="auto",
        fp16=False,
        occupy=False,
    )


def _sizes(exp: Exp, recipe: Mapping[str, Any]) -> str:
    """The input sizes of a run, whose recipe may have others than the Exp."""
    exp = copy.copy(exp)
    exp.put(multiscale_range=recipe["multiscale_range"])
    sizes = ["×".join(map(str, size)) for size in exp.train_sizes()]
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
