"""The command line of tools/check_data.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Examine a data set before training. Exits with status 1 if it has errors.",
        "python tools/check_data.py -f exps/yolox_voc_s.py --sheet sheet.png --augmented\n"
        "  python tools/check_data.py datasets/VOCdevkit --json report.json",
    )
    add = parser.add_argument
    add("--strict", action="store_true", help="count warnings as errors")
    add("--json", type=Path, metavar="FILE", help="write the report to this JSON file as well")
    add(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="draw training images with their boxes into this picture",
    )
    add(
        "--augmented",
        action="store_true",
        help="show on the sheet what the network sees in training, after augmentation",
    )
    add("--count", type=parts.positive, default=16, help="number of images on the sheet")
    add(
        "--seed",
        type=parts.seed,
        help="seed that chooses the images on the sheet (default: the Exp's)",
    )
    add(
        "--size",
        type=parts.side,
        help="input size of the network in pixels, if a PATH is given (default: 640)",
    )
    add(
        "--workers",
        type=parts.positive,
        help="number of threads that decode images (default: one for each processor)",
    )
    group = parser.add_argument_group("data")
    group.add_argument("-f", "--exp_file", type=Path, help="Exp file")
    group.add_argument(
        "-n",
        "--name",
        help=("built-in Exp: yolox-nano, yolox-tiny, yolox-s, yolox-m, yolox-l, yolox-x or yolov3"),
    )
    group.add_argument(
        "--data", type=Path, metavar="PATH", help="the same as PATH; with -n, as that model sees it"
    )
    group.add_argument(
        "opts",
        nargs="*",
        default=[],
        metavar="PATH | key value",
        help=(
            "a data set (VOCdevkit or COCO folder, JSON file, data.yaml), or fields of the "
            "Exp to set"
        ),
    )
    return parser
