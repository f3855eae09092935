"""The command line of tools/compare.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.choices import COMPARED_RUNS, PAIRED_DRAWS


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Compare checkpoints in a table. Sizes and times are relative to the first.",
        "python tools/compare.py -c best_ckpt.pth pruned.pth --labels before after",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        nargs="+",
        required=True,
        help="checkpoints to compare, a .pt of Ultralytics among them; the first is the reference",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        help="a name for each checkpoint (default: the ends of the paths that differ)",
    )
    parser.add_argument(
        "--runs",
        type=parts.positive,
        default=COMPARED_RUNS,
        help="number of timed forward passes of each model",
    )
    parser.add_argument(
        "--no-eval", action="store_true", help="do not measure AP; no data set is needed then"
    )
    parser.add_argument(
        "--paired",
        type=parts.positive,
        nargs="?",
        const=PAIRED_DRAWS,
        metavar="DRAWS",
        help=(
            "say which differences in AP from the first are real: resample the evaluation images "
            f"this many times, {PAIRED_DRAWS} times if no number is given (default: do not)"
        ),
    )
    parts.add_device(parser)
    parts.add_exp_arguments(parser)
    return parser
