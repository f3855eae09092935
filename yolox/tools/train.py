"""Train a model, or fine-tune a pruned one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from loguru import logger

from yolox.core import Trainer, end_with_parent, is_supervised, told_once
from yolox.exp import Exp
from yolox.jobs.train import choose_logger
from yolox.tools import cli
from yolox.tools.flags.train import make_parser
from yolox.tools.processes import join_machines, start_processes
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.dist import get_rank
from yolox.utils.locks import claimed
from yolox.utils.logger import setup_logger
from yolox.utils.printable import printable


def _check_flags(args: argparse.Namespace) -> None:
    cli.refuse_both(
        args, ("--act", "act"), ("--act", "finetune_act"), ("--batch-size", "batch_size")
    )
    cli.one_precision(args, "auto")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, train."""
    if is_supervised():
        end_with_parent()
    args = make_parser().parse_args(argv)
    with told_once():
        if args.sparsity is not None:
            cli.refuse_both(args, ("--sparsity", "sparsity"))
            args.opts = ["sparsity", str(args.sparsity), *args.opts]
        _check_flags(args)
        args.run_logger, args.opts = choose_logger(args.logger, args.opts)
        exp = cli.load_exp(args)
        join_machines(args)
        words = sys.argv[1:] if argv is None else argv
        if start_processes(args, words, module="yolox.tools.train"):
            return
        trainer = exp.get_trainer(args)
    if trainer.fabric.is_global_zero:
        no_run = args.start_epoch is not None and not args.resume
        cli.tell_idle(("-e", no_run, "no run is resumed: give --resume"))
    # The log is of the run too: claimed before a line of another one's gets into it.
    folder = trainer.settings.output_dir
    claim = claimed(folder, CheckpointError) if trainer.fabric.is_global_zero else nullcontext()
    with claim:
        _train(trainer, exp, args)


def _train(trainer: Trainer, exp: Exp, args: argparse.Namespace) -> None:
    """Say what is trained, and train."""
    setup_logger(trainer.settings.output_dir, get_rank())
    logger.info(
        f"{exp.exp_name}: {exp.num_classes} classes "
        f"({', '.join(map(printable, exp.class_names))}), "
        f"{len(trainer.image_names)} training images, {trainer.settings.max_epoch} epochs, "
        f"input {_sizes(exp)}, "
        f"{trainer.fabric.world_size} × {trainer.fabric.device.type}, precision "
        f"{trainer.recipe['precision']}, output in {trainer.settings.output_dir}"
    )
    trainer.train()


def _sizes(exp: Exp) -> str:
    """The input sizes that the fields describe."""
    sizes = ["×".join(map(str, size)) for size in exp.train_sizes()]
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


if __name__ == "__main__":
    cli.entry(main)
