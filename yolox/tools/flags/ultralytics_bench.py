"""The command line of tools/ultralytics_bench.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.choices import LATENCY_RUNTIME
from yolox.utils.cores import cores


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Compare models of Ultralytics: parameters, MACs, file size, latency in a runtime, and AP "
        "with --data. Ratios are relative to the first.",
        "python tools/ultralytics_bench.py best.pt pruned.pt --data my.yaml",
    )
    add = parser.add_argument
    add(
        "files",
        type=Path,
        nargs="+",
        help=".pt files of Ultralytics, pruned or not; the first is the reference",
    )
    add(
        "--data",
        help=(
            "data set whose val split AP is measured on, by Ultralytics' validator "
            "(default: AP is not measured)"
        ),
    )
    add(
        "--imgsz",
        type=parts.side,
        help="side of the images in pixels (default: what the first model was trained at)",
    )
    add(
        "--runtime",
        choices=("torch", "onnxruntime", "openvino"),
        default=LATENCY_RUNTIME,
        help=(
            "runtime that the latency is measured in, with the file that Ultralytics' "
            "exporter writes"
        ),
    )
    add("--threads", type=parts.positive, default=cores(), help="number of threads")
    parts.add_openvino_precision(parser)
    parts.add_device(parser)
    return parser
