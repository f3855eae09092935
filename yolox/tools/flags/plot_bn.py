"""The command line of tools/plot_bn.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Draw the scales of batch norms, which sparsity training brings to 0.",
        "python tools/plot_bn.py -c before.pth after.pth --labels before after -o bn.png",
    )
    parser.add_argument(
        "-c", "--ckpt", type=Path, nargs="+", required=True, help="checkpoints to draw"
    )
    parser.add_argument(
        "--labels", nargs="+", help="a name for each checkpoint (default: folder/file)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("bn.png"), help="PNG file to write"
    )
    return parser
