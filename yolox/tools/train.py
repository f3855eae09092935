"""Train a model, or fine-tune a pruned one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from yolox.core import end_with_parent, is_supervised, report_once
from yolox.jobs.train import choose_logger, run_trainer
from yolox.tools import cli
from yolox.tools.flags.train import make_parser
from yolox.tools.processes import join_machines, start_processes
from yolox.utils.device import resolve_device, resolve_precision
from yolox.utils.dist import get_rank
from yolox.utils.logger import remembering, setup_logger


def _check_flags(args: argparse.Namespace) -> None:
    cli.refuse_both(
        args, ("--act", "act"), ("--act", "finetune_act"), ("--batch-size", "batch_size")
    )
    cli.one_precision(args, "auto")
    resolve_precision(args.precision, resolve_device(args.device))  # before data are looked at


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, train."""
    if is_supervised():
        end_with_parent()
    args = make_parser().parse_args(argv)
    with report_once(), remembering() as told:
        if args.sparsity is not None:
            cli.refuse_both(args, ("--sparsity", "sparsity"))
            args.opts = ["sparsity", str(args.sparsity), *args.opts]
        _check_flags(args)
        args.run_logger, args.opts = choose_logger(args.logger, args.opts)
        exp = cli.load_exp(args)
        join_machines(args)
        words = sys.argv[1:] if argv is None else argv
        if start_processes(args, words, module="train"):
            return
        with cli.telling_whose_data(args, exp):
            trainer = exp.get_trainer(args)
    if trainer.fabric.is_global_zero:
        no_run = args.start_epoch is not None and not args.resume
        cli.tell_idle(("-e", no_run, "no run is resumed: give --resume"))
    run_trainer(trainer, exp, log_to=lambda folder: setup_logger(folder, get_rank(), earlier=told))


if __name__ == "__main__":
    cli.entry(main, make_parser)
