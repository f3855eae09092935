"""The command line of tools/train.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.choices import LOGGERS, SAVE_EVERY


def make_parser() -> argparse.ArgumentParser:
    """The flags, official ones among them."""
    parser = parts.make_parser(
        "Train a YOLOX on your images. A pruned checkpoint after -c is fine-tuned.",
        "python tools/train.py -f exps/yolox_voc_s.py -b 16 max_epoch 50",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        help=(
            "weights to start from: a checkpoint, or a published name such as yolox_nano "
            "(default: none)"
        ),
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue a stopped run: that of -c, or latest_ckpt.pth in the output folder",
    )
    parser.add_argument(
        "-e",
        "--start_epoch",
        type=parts.natural,
        help="number of epochs that a resumed run counts as done (default: the checkpoint's)",
    )
    parser.add_argument(
        "--save-every",
        type=parts.minutes,
        default=SAVE_EVERY,
        metavar="MINUTES",
        help=(
            "minutes between two saves inside an epoch, the most that a killed run loses; 0 saves "
            "only after each epoch and when the run is stopped (default: %(default)g)"
        ),
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=parts.positive,
        help="number of images in a step, over all devices (default: the Exp's batch_size)",
    )
    parser.add_argument(
        "-expn", "--experiment-name", help="name of the output folder (default: the Exp's exp_name)"
    )
    parser.add_argument("--act", help="activation: silu, mish, relu or lrelu (default: the Exp's)")
    parser.add_argument(
        "--cache",
        nargs="?",
        const="ram",
        choices=("ram", "disk"),
        help="keep decoded images in memory or on disk (default: not kept)",
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
        help=(
            "write over a finished fine-tuning of another model or with other settings (default: "
            "refuse)"
        ),
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help=(
            "fine-tune a whole checkpoint by the recipe of a pruned one: the control that a pruned "
            "model is compared with (default: a whole model is trained as the Exp says)"
        ),
    )
    parser.add_argument(
        "-l",
        "--logger",
        choices=LOGGERS,
        default=LOGGERS[0],
        help=(
            "where curves go besides TensorBoard files; options follow at the end, as "
            "wandb-project NAME, see docs/run_loggers.md"
        ),
    )
    tried = parts.experimental(
        parser, "longer fine-tuning did as well or better in our measurements"
    )
    tried.add_argument(
        "--distill",
        type=Path,
        metavar="TEACHER",
        help=(
            "teacher: a checkpoint to learn from as well, usually the one that was pruned "
            "(default: none)"
        ),
    )
    tried.add_argument(
        "--sparsity",
        type=float,
        help="strength of the penalty on batch-norm scales (default: the Exp's)",
    )
    parts.add_device_arguments(parser)
    parts.add_exp_arguments(parser)
    return parser
