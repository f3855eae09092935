"""One HTML file that puts models side by side: size, speed, accuracy, pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.report.write import PageSettings, write_report
from yolox.tools import cli
from yolox.tools.flags.report import make_parser
from yolox.tools.guests import is_openvino, read_guests
from yolox.tools.words import command_line


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write, say where."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.no_eval:
        cli.refuse_fields(args, "without AP nothing is read of the Exp")
        unread = {"images": "--images", "conf": "--conf"}
        for name, flag in unread.items():
            given = getattr(args, name) != parser.get_default(name)
            cli.tell_idle((flag, given, "--no-eval leaves the images out"))
    cli.require_openvino(args, any(map(is_openvino, args.ckpt)) and not args.no_eval)
    exp = None if args.no_eval else cli.load_exp(args)
    if exp is not None:
        tell_idle(exp, idle_without_training(exp))
    page = PageSettings(
        labels=tuple(args.labels or ()),
        title=args.title,
        images=args.images,
        conf=args.conf,
        bench=args.bench,
        compress=args.compress,
        openvino_precision=args.openvino_precision,
        device=args.device,
    )
    guests = read_guests(args.ckpt)
    command = command_line("report", *(sys.argv[1:] if argv is None else argv))
    with cli.telling_whose_data(args, exp):
        write_report(args.ckpt, exp, args.output, page, command=command, guests=guests or None)
    show(args.output)


def show(output: Path) -> None:
    """Say where the page is."""
    size = output.stat().st_size / 1e6
    logger.info(f"report in {output} ({size:.1f} MB): open it in a browser, or send it")


if __name__ == "__main__":
    cli.entry(main, make_parser)
