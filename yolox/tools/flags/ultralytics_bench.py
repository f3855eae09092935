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
        "Models of Ultralytics side by side: parameters, MACs, file, latency in a runtime, and AP "
        "with --data. Ratios are to the first.",
        "python tools/ultralytics_bench.py best.pt pruned.pt --data my.yaml",
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", help=".pt of Ultralytics, pruned or not")
    add("--data", help="data set on whose val split AP is measured by their validator (none)")
    add("--imgsz", type=parts.side, help="side of the images (what the first was trained at)")
    add(
        "--runtime",
        choices=("torch", "onnxruntime", "openvino"),
        default=LATENCY_RUNTIME,
        help="what the latency is measured in, in the file that their exporter writes",
    )
    add("--threads", type=parts.positive, default=cores(), help="of a run")
    parts.add_openvino_precision(parser)
    return parser
