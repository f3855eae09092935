"""Export a checkpoint to ONNX, with the official command's flags; `yolox.tools.export` does it."""

from __future__ import annotations

from collections.abc import Sequence

from yolox.tools import cli
from yolox.tools.export import (
    export,
)
from yolox.tools.flags.export_onnx import make_parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export."""
    export(make_parser().parse_args(argv))


if __name__ == "__main__":
    cli.entry(main, make_parser)
