"""The command line of tools/report.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = parts.make_parser(
        "Write one HTML file that puts models side by side: the first is the one before, the last "
        "the one after.",
        "python tools/report.py -c best_ckpt.pth tuned.pth --bench bench.json -o report.html "
        "-f exps/yolox_voc_s.py",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        nargs="+",
        required=True,
        help="checkpoints or exported files, one or more",
    )
    parser.add_argument("--labels", nargs="+", help="a name a model (the ends of the paths)")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="to write")
    parser.add_argument("--title", default="", help="of the page (the Exp's name)")
    parser.add_argument("--bench", type=Path, help="latencies: what --json of bench wrote")
    parts.add_openvino_precision(parser)
    parser.add_argument(
        "--compress", type=Path, help="commands: the compress.json that compress wrote"
    )
    parser.add_argument(
        "--images", type=parts.natural, default=6, help="most images to show side by side"
    )
    parser.add_argument(
        "--conf", type=parts.fraction, default=0.3, help="least score of a detection drawn on them"
    )
    parser.add_argument(
        "--no-eval", action="store_true", help="leave out all that needs data: AP, curves, images"
    )
    parts.add_exp_arguments(parser)
    return parser
