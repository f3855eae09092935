"""Train in Ultralytics' own trainer, with the structure kept and with sparsity."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from yolox.pruning import SparsityConfig
from yolox.tools import cli
from yolox.tools.flags.ultralytics_train import make_parser
from yolox.tools.words import command_line
from yolox.ultralytics.installed import begin_safely


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, say where the result is."""
    args = make_parser().parse_args(argv)
    cli.tell_idle(
        (
            "--form, --schedule and --warmup",
            args.sparsity is None and (args.form, args.schedule, args.warmup) != _DEFAULTS,
            "they are of --sparsity",
        )
    )
    sparsity = None
    if args.sparsity is not None:
        sparsity = SparsityConfig(
            strength=args.sparsity, form=args.form, schedule=args.schedule, warmup=args.warmup
        )
    begin_safely()
    # Only now: it imports Ultralytics.
    from yolox.ultralytics.trainer import train

    best = train(args.model, args.opts, sparsity)
    logger.info(f"trained: {best}")
    if sparsity:
        words = (best, "--importance", "bn", "--data", "my.yaml")
        logger.info(f"prune by its scales: {command_line('ultralytics_prune', *words)}")


_DEFAULTS = ("l1", "constant", 0.0)

if __name__ == "__main__":
    cli.entry(main, make_parser)
