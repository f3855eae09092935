"""The command line of tools/export.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.settings import FORMATS, OPSET
from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Export a checkpoint, dense or pruned, for another runtime; the file is run in that "
        "runtime and kept if it computes what PyTorch does.",
        "python tools/export.py -c YOLOX_outputs/yolox_voc_s/pruned.pth --format openvino",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="what to export to")
    parser.add_argument(
        "-o", "--output-name", type=Path, help="file to write (beside the checkpoint)"
    )
    add_source_arguments(parser)
    graph = parser.add_argument_group("graph")
    graph.add_argument(
        "--decode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="boxes in pixels; --no-decode leaves the head's offsets and log sizes",
    )
    graph.add_argument(
        "--nms-in-graph",
        action="store_true",
        help="non-maximum suppression in the file, with --conf and --nms (onnx, openvino)",
    )
    graph.add_argument(
        "--half", action="store_true", help="weights in float16 (onnx, openvino, ncnn)"
    )
    graph.add_argument(
        "--dynamic-size",
        action="store_true",
        help="any height and width, multiples of 32 (not ncnn); slow to export",
    )
    graph.add_argument(
        "--opset", type=parts.positive, help=f"ONNX opset ({OPSET}; onnx and openvino)"
    )
    add_graph_arguments(graph)
    add_check_arguments(parser)
    parts.add_exp_arguments(parser)
    return parser


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What is exported."""
    parser.add_argument("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")


def add_graph_arguments(graph: argparse._ArgumentGroup) -> None:
    """What the graph is to look like: the flags that the official command has too."""
    graph.add_argument("--input", default="images", help="name of the input")
    graph.add_argument("--output", default="output", help="name of the output")
    graph.add_argument("--batch-size", type=parts.positive, default=1, help="images a run")
    graph.add_argument("--dynamic", action="store_true", help="any number of images a run")
    graph.add_argument(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help="input size, one number for a square (the checkpoint's)",
    )
    graph.add_argument(
        "--slim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="simplify ONNX with onnxslim where it is installed",
    )


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """What is compared."""
    check = parser.add_argument_group("check")
    check.add_argument(
        "--path",
        type=Path,
        help="image or folder to compare on, beside a made-up scene (evaluation images of the Exp "
        "where one is named)",
    )
    check.add_argument(
        "--conf", type=parts.fraction, default=0.3, help="least score; goes into the file"
    )
    check.add_argument(
        "--nms", type=parts.fraction, default=0.45, help="IoU of NMS; goes into the file"
    )
