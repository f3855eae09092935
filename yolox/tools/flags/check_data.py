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
    add("--strict", action="store_true", help="warnings count as errors")
    add("--json", type=Path, metavar="FILE", help="write the report here, too")
    add("--sheet", type=Path, metavar="FILE.png", help="write annotated images as one picture")
    add("--augmented", action="store_true", help="on the sheet, what the network sees in training")
    add("--count", type=parts.positive, default=16, help="images on the sheet")
    add("--seed", type=parts.seed, help="of their choice (the Exp's)")
    add("--size", type=parts.side, help="of a PATH: the network's input side in pixels (640)")
    add("--workers", type=parts.positive, help="threads that decode images (one a processor)")
    group = parser.add_argument_group("data")
    group.add_argument("-f", "--exp_file", type=Path, help="Exp file")
    group.add_argument("-n", "--name", help="built-in Exp: yolox-nano … yolox-x, yolov3")
    group.add_argument("--data", type=Path, metavar="PATH", help="the same as PATH; or with -n")
    group.add_argument(
        "opts",
        nargs="*",
        default=[],
        metavar="PATH | key value",
        help="a VOCdevkit or COCO folder, a JSON file, a data.yaml; or Exp fields to set",
    )
    return parser
