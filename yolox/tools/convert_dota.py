"""Cut DOTA's aerial images into tiles with upright boxes, in the layout of VOC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from yolox.data.convert import TileSettings, convert_dota
from yolox.tools import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, convert, print."""
    parser = cli.make_parser(
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
    parser.add_argument("--size", type=cli.positive, default=1024, help="side of a tile, pixels")
    parser.add_argument(
        "--overlap", type=cli.natural, default=200, help="of neighbouring tiles, pixels"
    )
    parser.add_argument(
        "--min-area",
        type=cli.fraction,
        default=0.4,
        help="least part of an object that a tile must show; below 0.7 it is marked difficult",
    )
    parser.add_argument(
        "--keep-empty",
        type=cli.fraction,
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
        type=cli.positive,
        default=os.cpu_count() or 1,
        help="processes; each decodes an image, at 6 bytes a pixel",
    )
    args = parser.parse_args(argv)

    made = convert_dota(
        args.images,
        args.labels,
        args.output,
        year=args.year,
        split=args.split,
        settings=TileSettings(
            size=args.size,
            overlap=args.overlap,
            min_area=args.min_area,
            keep_empty=args.keep_empty,
            difficult=args.difficult,
        ),
        workers=args.workers,
    )
    logger.info(
        f"{made.images} images → {made.tiles} tiles with {made.objects} objects "
        f"({made.difficult} of them difficult) in {made.folder}, split {args.split}; "
        f"{len(made.classes)} classes: {', '.join(made.classes)}"
    )


if __name__ == "__main__":
    cli.entry(main)
