"""Put checkpoints side by side: params, MACs, file size, measured latency, AP."""

from __future__ import annotations

from collections.abc import Sequence

from loguru import logger

from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.compare import compare
from yolox.tools import cli
from yolox.tools.flags.compare import make_parser
from yolox.tools.guests import read_guests, refuse_exported
from yolox.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    args = make_parser().parse_args(argv)
    guests = read_guests(args.ckpt)
    refuse_exported(guests)
    if args.paired and args.no_eval:
        raise UserError("`paired` is about AP: leave out `no_eval`")
    if args.no_eval:
        cli.refuse_fields(args, "without AP nothing is read of the Exp")
    exp = None if args.no_eval else cli.load_exp(args)
    if exp is not None:
        tell_idle(exp, idle_without_training(exp))
    with cli.telling_whose_data(args, exp):
        found = compare(
            args.ckpt,
            exp,
            labels=args.labels,
            runs=args.runs,
            paired=args.paired,
            device=args.device,
            guests=guests,
        )
    cli.console().print(found.table())
    for line in found.lines():
        logger.info(line)
    if found.differences:
        logger.info(
            f"in brackets: 95 % of {args.paired} draws of the evaluation images, the same for both "
            "models (paired bootstrap); another training run is another matter"
        )


if __name__ == "__main__":
    cli.entry(main, make_parser)
