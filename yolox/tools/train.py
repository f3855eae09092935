"""Train a model, or fine-tune a pruned one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from yolox.core import end_with_parent, is_supervised, told_once
from yolox.jobs.train import LOGGERS, choose_logger
from yolox.tools import cli
from yolox.tools.processes import join_machines, start_processes
from yolox.utils.dist import get_rank
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger


def make_parser() -> argparse.ArgumentParser:
    """The flags, official ones among them."""
    parser = cli.make_parser(
        "Train a YOLOX on your images; with -c a pruned checkpoint, fine-tune it.",
        "python tools/train.py -f exps/yolox_voc_s.py -b 16 max_epoch 50",
    )
    parser.add_argument(
        "-c", "--ckpt", type=Path, help="weights to start from: a file, or a name as yolox_nano"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a stopped run: -c's, or the output folder's latest_ckpt.pth",
    )
    parser.add_argument(
        "-e",
        "--start_epoch",
        type=cli.natural,
        help="epochs that a resumed run takes as done (the checkpoint's)",
    )
    parser.add_argument(
        "-b", "--batch-size", type=cli.positive, help="images a step, over all devices (the Exp's)"
    )
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
    parser.add_argument(
        "--distill",
        type=Path,
        metavar="TEACHER",
        help="learn from this checkpoint too, usually the one that was pruned (no teacher)",
    )
    parser.add_argument(
        "--sparsity", type=float, help="strength of the penalty on batch-norm scales (the Exp's)"
    )
    parser.add_argument("--act", help="activation: silu, mish, relu or lrelu (the Exp's)")
    parser.add_argument(
        "--cache",
        nargs="?",
        const="ram",
        choices=("ram", "disk"),
        help="keep decoded images, in memory or on disk (not kept)",
    )
    parser.add_argument(
        "-o",
        "--occupy",
        action="store_true",
        help="accepted for old command lines; memory is not reserved ahead",
    )
    parser.add_argument(
        "-l",
        "--logger",
        choices=LOGGERS,
        default=LOGGERS[0],
        help="where curves go beside TensorBoard's files; options follow as Exp fields do: "
        "wandb-project NAME, see docs/run_loggers.md",
    )
    cli.add_device_arguments(parser)
    cli.add_exp_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, train."""
    if is_supervised():
        end_with_parent()
    args = make_parser().parse_args(argv)
    with told_once():
        if args.sparsity is not None:
            if "sparsity" in args.opts[::2]:
                raise UserError("--sparsity and the field sparsity are one: give one of them")
            args.opts = ["sparsity", str(args.sparsity), *args.opts]
        args.run_logger, args.opts = choose_logger(args.logger, args.opts)
        exp = cli.load_exp(args)
        join_machines(args)
        words = sys.argv[1:] if argv is None else argv
        if start_processes(args, words, module="yolox.tools.train"):
            return
        trainer = exp.get_trainer(args)
    setup_logger(trainer.settings.output_dir, get_rank())
    logger.info(
        f"{exp.exp_name}: {exp.num_classes} classes ({', '.join(exp.class_names)}), "
        f"{len(trainer.image_names)} training images, {trainer.settings.max_epoch} epochs, "
        f"{trainer.fabric.world_size} × {trainer.fabric.device.type}, precision "
        f"{trainer.recipe['precision']}, output in {trainer.settings.output_dir}"
    )
    trainer.train()


if __name__ == "__main__":
    cli.entry(main)
