"""Train a pruned checkpoint further."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from yolox.tools import cli, train
from yolox.tools.flags.finetune import make_parser
from yolox.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Refuse to begin without weights, which `train` takes as a training from scratch."""
    words = sys.argv[1:] if argv is None else argv
    args = make_parser().parse_args(words)
    if not (args.ckpt or args.resume):
        raise UserError(
            "fine-tuning starts from a checkpoint: give it as -c, usually the pruned.pth that "
            "pruning wrote, or continue a stopped run with --resume"
        )
    train.main(words)


if __name__ == "__main__":
    cli.entry(main, make_parser)
