"""The command line of tools/bench.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.runtimes import RUNTIMES
from yolox.tools.flags import parts
from yolox.utils.cores import cores


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Measure checkpoints and exported files on this machine: latency, throughput, "
        "memory, size. Ratios are relative to the first.",
        "python tools/bench.py best_ckpt.pth pruned.pth --runtimes torch onnxruntime openvino "
        "--threads 1 2 --batch 1 4 --json bench.json",
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help=(
            "checkpoints or exported files: .pth, .onnx, .xml, .param, .torchscript; a .pt of "
            "Ultralytics, or a file or folder that its exporter wrote"
        ),
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        help="a name for each file (default: the ends of the paths that differ)",
    )
    cases = parser.add_argument_group("what is measured")
    cases.add_argument(
        "--runtimes",
        nargs="+",
        choices=tuple(RUNTIMES),
        default=["torch", "onnxruntime"],
        help=(
            "runtimes for checkpoints, which are exported for them; an exported file runs "
            "in those that can run it, otherwise in its own"
        ),
    )
    cases.add_argument(
        "--threads",
        type=parts.positive,
        nargs="+",
        default=[cores()],
        help="numbers of threads to measure with",
    )
    cases.add_argument(
        "--batch", type=parts.positive, nargs="+", default=[1], help="batch sizes to measure with"
    )
    cases.add_argument(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help=(
            "input size in pixels, multiples of 32; one number for a square (default: the "
            "first file's)"
        ),
    )
    parts.add_openvino_precision(cases)
    parts.add_device(cases)
    cases.add_argument(
        "--no-memory", action="store_true", help="do not measure memory, which is faster"
    )
    scene = parser.add_argument_group("picture")
    scene.add_argument(
        "--image", type=Path, help="picture to detect on (default: a synthetic scene)"
    )
    scene.add_argument(
        "--conf", type=parts.fraction, default=0.3, help="lowest score of a detection"
    )
    scene.add_argument("--nms", type=parts.fraction, default=0.45, help="IoU threshold of NMS")
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--runs", type=parts.positive, default=30, help="number of timed runs of each model"
    )
    runs.add_argument(
        "--warmup",
        type=parts.natural,
        default=5,
        help="number of runs of each model before the timed ones",
    )
    runs.add_argument(
        "--at-most",
        type=parts.positive,
        default=300,
        help=("seconds after which no further round begins; each model gets at least three runs"),
    )
    parser.add_argument(
        "--json", type=Path, help="JSON file to write every figure to (default: none)"
    )
    return parser
