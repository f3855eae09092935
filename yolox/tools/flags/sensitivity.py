"""The command line of tools/sensitivity.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from yolox.pruning import CRITERIA
from yolox.tools.flags import parts
from yolox.utils.choices import AP_TOLERANCE, LAYER_RATIOS, LOSS_TOLERANCE, METRICS


def _number(allowed: Callable[[float], bool], what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return value

    read.__name__ = "number"  # argparse: invalid number value
    return read


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Measure how much each layer costs if it alone is pruned. The same command continues a "
        "stopped run.",
        "python tools/sensitivity.py --ratios 0.1 0.3 0.5 0.7 -f exps/yolox_voc_s.py",
    )
    add = parser.add_argument
    add(
        "-c",
        "--ckpt",
        type=Path,
        help="checkpoint to measure (default: best_ckpt.pth in the Exp's output folder)",
    )
    add(
        "-o",
        "--output",
        type=Path,
        help="folder to write into (default: sensitivity in the Exp's output folder)",
    )
    add(
        "--ratios",
        type=_number(lambda value: 0 < value < 1, "between 0 and 1, exclusive"),
        nargs="+",
        default=list(LAYER_RATIOS),
        help="fractions of a layer's channels to remove",
    )
    add(
        "--layers",
        nargs="+",
        default=[],
        help="names or patterns of layers to measure (default: all)",
    )
    add(
        "--metric",
        choices=tuple(METRICS),
        default="ap",
        help=(
            "ap: AP50-95 on the evaluation images; loss: the training loss on --images "
            "training images"
        ),
    )
    add(
        "--importance",
        choices=tuple(CRITERIA),
        default="taylor",
        help="criterion that decides which channels of a layer go first",
    )
    add(
        "--images",
        type=parts.positive,
        default=64,
        help="number of training images for scores and loss",
    )
    add(
        "--tolerance",
        type=_number(lambda value: 0 <= value < float("inf"), "at least 0"),
        help=(
            "what a layer may cost: a fall of AP, or a rise of the loss as a fraction of it "
            f"(default: {AP_TOLERANCE} of AP, {LOSS_TOLERANCE} of the loss)"
        ),
    )
    parts.add_device(parser)
    parts.add_exp_arguments(parser)
    return parser
