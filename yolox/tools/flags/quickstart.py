"""The command line of tools/quickstart.py."""

from __future__ import annotations

import argparse

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Train, prune, fine-tune and compare a small YOLOX on built-in data.",
        "python tools/quickstart.py",
    )
    parser.add_argument(
        "--ch-sparsity", type=float, default=0.4, help="fraction of the channels to remove"
    )
    parts.add_device(parser)
    return parser
