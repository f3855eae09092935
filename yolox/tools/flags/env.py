"""The command line of tools/env.py."""

from __future__ import annotations

import argparse

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return parts.make_parser(
        "Print versions, processor, memory, devices and runtimes as text, to paste into a bug "
        "report. It holds no paths and no names of users or machines.",
        "python tools/env.py",
    )
