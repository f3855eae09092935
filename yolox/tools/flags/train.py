"""The command line of tools/train.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.choices import LOGGERS


def make_parser() -> argparse.ArgumentParser:
    """The flags, official ones among them."""
    parser = parts.make_parser(
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
        type=parts.natural,
        help="epochs that a resumed run takes as done (the checkpoint's)",
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=parts.positive,
        help="images a step, over all devices (the Exp's)",
    )
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
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
        help=argparse.SUPPRESS,  # of old command lines: memory is not reserved ahead
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write over a finished fine-tuning of another model or with other settings",
    )
    parser.add_argument(
        "-l",
        "--logger",
        choices=LOGGERS,
        default=LOGGERS[0],
        help="where curves go beside TensorBoard's files; options follow as Exp fields do: "
        "wandb-project NAME, see docs/run_loggers.md",
    )
    tried = parts.experimental(parser, "fine-tuning longer gained as much or more here")
    tried.add_argument(
        "--distill",
        type=Path,
        metavar="TEACHER",
        help="learn from this checkpoint too, usually the one that was pruned (no teacher)",
    )
    tried.add_argument(
        "--sparsity", type=float, help="strength of the penalty on batch-norm scales (the Exp's)"
    )
    parts.add_device_arguments(parser)
    parts.add_exp_arguments(parser)
    return parser
