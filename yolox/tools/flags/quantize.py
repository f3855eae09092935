"""The command line of tools/quantize.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.settings import METHODS
from yolox.tools.flags import parts
from yolox.utils.choices import CALIBRATION_IMAGES


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Quantize a checkpoint, dense or pruned, to INT8 without training. Layers that AP depends "
        "on stay in float.",
        "python tools/quantize.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth --format openvino",
    )
    add = parser.add_argument
    add(
        "-c",
        "--ckpt",
        type=Path,
        help="checkpoint to quantize (default: best_ckpt.pth in the Exp's output folder)",
    )
    add(
        "-expn", "--experiment-name", help="name of the output folder (default: the Exp's exp_name)"
    )
    add("--format", choices=tuple(METHODS), default="onnx", help="format to write")
    add(
        "-o",
        "--output-name",
        type=Path,
        help="file to write (default: <checkpoint>_int8 beside the checkpoint)",
    )
    add(
        "--calibration-images",
        type=parts.positive,
        default=CALIBRATION_IMAGES,
        help="number of training images to measure ranges on",
    )
    methods = "; ".join(f"{name}: {', '.join(able)}" for name, able in METHODS.items())
    add(
        "--calibration",
        default="",
        help=(
            "how the range of an activation is found, by format; the first is the default: "
            f"{methods}"
        ),
    )
    add("--max-drop", type=parts.fraction, default=0.01, help="AP50-95 that may be lost")
    add(
        "--keep-anyway",
        action="store_true",
        help="write the best file found, even if it loses more than --max-drop",
    )
    add(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help=(
            "input size in pixels, multiples of 32; one number for a square (default: the "
            "checkpoint's)"
        ),
    )
    add("--dynamic", action="store_true", help="accept any number of images in a run")
    parts.add_exp_arguments(parser)
    return parser
