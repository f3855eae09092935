"""The command line of tools/quantize.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.settings import METHODS
from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Quantize a checkpoint, dense or pruned, to int8 after training; layers that AP depends on "
        "stay in float.",
        "python tools/quantize.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth --format openvino",
    )
    add = parser.add_argument
    add("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    add("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
    add("--format", choices=tuple(METHODS), default="onnx", help="what to write")
    add("-o", "--output-name", type=Path, help="file to write (<checkpoint>_int8 beside it)")
    add("--calibration-images", type=parts.positive, default=128, help="training images to use")
    methods = "; ".join(f"{name}: {', '.join(able)}" for name, able in METHODS.items())
    add("--calibration", default="", help=f"how ranges are found, the first unless said: {methods}")
    add("--max-drop", type=parts.fraction, default=0.01, help="AP50-95 that may be lost")
    add(
        "--keep-anyway",
        action="store_true",
        help="write the best file found even where it loses more",
    )
    add(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help="input size, one number for a square (the checkpoint's)",
    )
    add("--dynamic", action="store_true", help="a file for any number of images a run")
    parts.add_exp_arguments(parser)
    return parser
