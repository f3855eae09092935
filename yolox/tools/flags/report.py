"""The command line of tools/report.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = parts.make_parser(
        "Write one HTML file that compares models. The first file is the model before, the last "
        "one the model after.",
        "python tools/report.py -c best_ckpt.pth tuned.pth --bench bench.json -o report.html "
        "-f exps/yolox_voc_s.py",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        nargs="+",
        required=True,
        help=(
            "checkpoints or exported files, of Ultralytics too; the first is the model before, "
            "the last the model after"
        ),
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        help="a name for each model (default: the ends of the paths that differ)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="HTML file to write"
    )
    parser.add_argument("--title", default="", help="title of the page (default: the Exp's name)")
    parser.add_argument(
        "--bench",
        type=Path,
        help="JSON file with latencies, written by --json of the bench command",
    )
    parts.add_openvino_precision(parser)
    parser.add_argument(
        "--compress", type=Path, help="compress.json of a compression, whose commands are shown"
    )
    parser.add_argument(
        "--images",
        type=parts.natural,
        default=6,
        help="how many images to show side by side, at most",
    )
    parser.add_argument(
        "--conf", type=parts.fraction, default=0.3, help="lowest score of a detection that is drawn"
    )
    parser.add_argument(
        "--no-eval", action="store_true", help="leave out what needs data: AP, curves and images"
    )
    parts.add_exp_arguments(parser)
    return parser
