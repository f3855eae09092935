"""Models of Ultralytics side by side."""

from __future__ import annotations

from collections.abc import Sequence

from yolox.jobs.prune_latency import LatencySettings
from yolox.pruning import comparison_table
from yolox.tools import cli
from yolox.tools.flags.ultralytics_bench import make_parser
from yolox.ultralytics.installed import begin_safely
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.printable import threads_of


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, measure, print."""
    args = make_parser().parse_args(argv)
    if args.openvino_precision != "f32" and args.runtime != "openvino":
        raise UserError("--openvino-precision is of a measurement in --runtime openvino")
    begin_safely()
    # Only now: it imports Ultralytics.
    from yolox.ultralytics.compare import compare_files
    from yolox.ultralytics.detector import trained_side
    from yolox.ultralytics.files import read_detector

    models = [read_detector(path) for path in args.files]
    side = args.imgsz or trained_side(models[0])
    settings = LatencySettings(
        runtime=args.runtime,
        threads=args.threads,
        openvino_precision=args.openvino_precision,
        device=args.device,
    )
    labels = short_names(args.files)
    rows = compare_files(models, args.files, labels, (side, side), settings, args.data)
    title = f"{side} × {side}, latency in {settings.version}, {threads_of(settings.threads)}"
    cli.console().print(comparison_table(rows, title))


if __name__ == "__main__":
    cli.entry(main, make_parser)
