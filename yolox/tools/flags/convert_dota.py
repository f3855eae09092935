"""The command line of tools/convert_dota.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Cut the images of DOTA 1.0, 1.5 or 2.0 into tiles with upright boxes, in the layout of "
        "VOC. Stopped and started again, it goes on where it was.",
        "python tools/convert_dota.py --images DOTA/train/images --labels DOTA/train/labelTxt "
        "--output datasets/VOCdevkit --split train",
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the label files")
    parser.add_argument("--output", type=Path, required=True, help="the VOCdevkit folder")
    parser.add_argument("--year", default="2007", help="tiles go into VOC<year>")
    parser.add_argument("--split", default="train", help="split that the tiles are added to")
    parser.add_argument("--size", type=parts.positive, default=1024, help="side of a tile, pixels")
    parser.add_argument(
        "--overlap", type=parts.natural, default=200, help="of neighbouring tiles, pixels"
    )
    parser.add_argument(
        "--min-area",
        type=parts.fraction,
        default=0.4,
        help="least part of an object that a tile must show; below 0.7 it is marked difficult",
    )
    parser.add_argument(
        "--keep-empty",
        type=parts.fraction,
        default=1.0,
        help="part of the tiles without objects to keep; whole-image evaluation needs all",
    )
    parser.add_argument(
        "--difficult",
        choices=("keep", "drop"),
        default="keep",
        help="objects that DOTA marks difficult: keep them so marked, or leave them out",
    )
    parser.add_argument(
        "--workers",
        type=parts.positive,
        default=os.cpu_count() or 1,
        help="processes; each decodes an image, at 6 bytes a pixel",
    )
    return parser
