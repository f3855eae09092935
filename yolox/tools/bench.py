"""Measure checkpoints and exported files on their runtimes: latency, throughput, memory, size."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from yolox.bench.results import slower_line, tables, unsteady_line
from yolox.jobs.measure import Measured, MeasureSettings, measure_models
from yolox.tools import cli
from yolox.tools.flags.bench import make_parser
from yolox.tools.guests import is_openvino, read_guests
from yolox.tools.words import command_line, speaker
from yolox.utils.cores import cores, processor


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    args = make_parser().parse_args(argv)
    runs_openvino = "openvino" in args.runtimes or any(map(is_openvino, args.files))
    cli.require_openvino(args, runs_openvino)
    settings = MeasureSettings(
        runtimes=tuple(args.runtimes),
        threads=tuple(args.threads),
        batches=tuple(args.batch),
        size=cli.image_size(args.tsize) if args.tsize else None,
        openvino_precision=args.openvino_precision,
        device=args.device,
        memory=not args.no_memory,
        image=args.image,
        conf=args.conf,
        nms=args.nms,
        runs=args.runs,
        warmup=args.warmup,
        at_most=args.at_most,
    )
    show(
        measure_models(
            args.files,
            settings,
            labels=args.labels,
            output=args.json,
            command=command_line("bench", *(sys.argv[1:] if argv is None else argv)),
            guests=read_guests(args.files) or None,
        )
    )


def show(measured: Measured) -> None:
    """Print the tables, and what a person should know of them."""
    results, console, say = measured.results, cli.console(), speaker(make_parser())
    if line := slower_line(results):
        console.print(line, style="bold red", markup=False, soft_wrap=True)
    for table in tables(results, measured.size):
        if not console.is_terminal:
            table.box = None
        console.print(table)
        console.print()
    runs = results[0].measurement.forward.runs
    console.print(
        f"{processor()}, {cores()} cores; {runs} runs of each, taken in turns", soft_wrap=True
    )
    if line := unsteady_line(results):
        console.print(line, style="bold", markup=False, soft_wrap=True)
    for note in measured.notes:
        console.print(f"note: {say(note)}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    cli.entry(main, make_parser)
