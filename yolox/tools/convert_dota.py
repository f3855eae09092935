"""Cut DOTA's aerial images into tiles with upright boxes, in the layout of VOC."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from yolox.data.convert import TileSettings, convert_dota
from yolox.tools import cli
from yolox.tools.flags.convert_dota import make_parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, convert, print."""
    args = make_parser().parse_args(argv)

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
    cli.entry(main, make_parser)
