"""The command line of tools/convert_dota.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.cores import cores


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Cut the images of DOTA 1.0, 1.5 or 2.0 into tiles with upright boxes, in the layout of "
        "VOC. The same command continues a stopped run.",
        "python tools/convert_dota.py --images DOTA/train/images --labels DOTA/train/labelTxt "
        "--output datasets/VOCdevkit --split train",
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the label files")
    parser.add_argument("--output", type=Path, required=True, help="VOCdevkit folder to write into")
    parser.add_argument(
        "--year", default="2007", help="the tiles are written into the folder VOC<year>"
    )
    parser.add_argument("--split", default="train", help="split that the tiles are added to")
    parser.add_argument(
        "--size", type=parts.positive, default=1024, help="side of a tile in pixels"
    )
    parser.add_argument(
        "--overlap", type=parts.natural, default=200, help="overlap of neighbouring tiles in pixels"
    )
    parser.add_argument(
        "--min-area",
        type=parts.fraction,
        default=0.4,
        help=(
            "fraction of an object's area that a tile must show to keep the object; objects "
            "below 0.7 are marked difficult"
        ),
    )
    parser.add_argument(
        "--keep-empty",
        type=parts.fraction,
        default=1.0,
        help=(
            "fraction of the tiles without objects to keep; evaluation on whole images "
            "needs all of them"
        ),
    )
    parser.add_argument(
        "--difficult",
        choices=("keep", "drop"),
        default="keep",
        help=("whether objects that DOTA marks difficult are kept, with that mark, or left out"),
    )
    parser.add_argument(
        "--workers",
        type=parts.positive,
        default=cores(),
        help="number of processes; each decodes one image, at 6 bytes for a pixel",
    )
    return parser
