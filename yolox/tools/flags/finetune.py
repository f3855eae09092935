"""The command line of tools/finetune.py: that of tools/train.py."""

from __future__ import annotations

import argparse

from yolox.tools.flags import train


def make_parser() -> argparse.ArgumentParser:
    """The flags of a training."""
    parser = train.make_parser()
    parser.description = (
        "Train a pruned checkpoint further. It takes the flags of train, and needs -c or --resume."
    )
    parser.epilog = (
        "example:\n  python tools/finetune.py -f exps/yolox_voc_s.py "
        "-c YOLOX_outputs/yolox_voc_s/pruned.pth"
    )
    return parser
