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
        "Measure checkpoints and exported files on this machine's CPU: latency, throughput, "
        "memory, size. Ratios are to the first.",
        "python tools/bench.py best_ckpt.pth pruned.pth --runtimes torch onnxruntime openvino "
        "--threads 1 2 --batch 1 4 --json bench.json",
    )
    parser.add_argument(
        "files", type=Path, nargs="+", help="checkpoints, .onnx, .xml, .param, .torchscript"
    )
    parser.add_argument("--labels", nargs="+", help="a name a file (the ends of their paths)")
    cases = parser.add_argument_group("what is measured")
    cases.add_argument(
        "--runtimes",
        nargs="+",
        choices=tuple(RUNTIMES),
        default=["torch", "onnxruntime"],
        help="of the checkpoints, which are exported for it; an exported file runs in those of "
        "them that can run it, else in its own",
    )
    cases.add_argument(
        "--threads", type=parts.positive, nargs="+", default=[cores()], help="threads of a run"
    )
    cases.add_argument("--batch", type=parts.positive, nargs="+", default=[1], help="images a run")
    cases.add_argument(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help="input size, one number for a square (the first file's)",
    )
    parts.add_openvino_precision(cases)
    cases.add_argument("--no-memory", action="store_true", help="leave memory out: it takes longer")
    scene = parser.add_argument_group("picture")
    scene.add_argument("--image", type=Path, help="picture to detect on (a made-up scene)")
    scene.add_argument("--conf", type=parts.fraction, default=0.3, help="least score")
    scene.add_argument("--nms", type=parts.fraction, default=0.45, help="IoU of NMS")
    runs = parser.add_argument_group("runs")
    runs.add_argument("--runs", type=parts.positive, default=30, help="timed runs of each")
    runs.add_argument("--warmup", type=parts.natural, default=5, help="runs of each before them")
    runs.add_argument(
        "--at-most",
        type=parts.positive,
        default=300,
        help="seconds after which no more runs are begun, three of each apart",
    )
    parser.add_argument("--json", type=Path, help="file for every figure (none)")
    return parser
