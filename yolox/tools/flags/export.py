"""The command line of tools/export.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.settings import FORMATS, OPSET
from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Export a checkpoint, dense or pruned, for another runtime. The file is run in that "
        "runtime, and kept if it computes what PyTorch computes.",
        "python tools/export.py -c YOLOX_outputs/yolox_voc_s/pruned.pth --format openvino",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="format to write")
    parser.add_argument(
        "-o", "--output-name", type=Path, help="file to write (default: beside the checkpoint)"
    )
    add_source_arguments(parser)
    graph = parser.add_argument_group("graph")
    graph.add_argument(
        "--decode",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=("write boxes in pixels; --no-decode writes the offsets and log sizes of the head"),
    )
    graph.add_argument(
        "--nms-in-graph",
        action="store_true",
        help=(
            "make non-maximum suppression a part of the file, with --conf and --nms (onnx, "
            "openvino)"
        ),
    )
    graph.add_argument(
        "--half", action="store_true", help="write weights in float16 (onnx, openvino, ncnn)"
    )
    graph.add_argument(
        "--dynamic-size",
        action="store_true",
        help=(
            "accept any height and width that are multiples of 32 (not ncnn); export is slow then"
        ),
    )
    graph.add_argument(
        "--opset", type=parts.positive, help=f"ONNX opset (default: {OPSET}; onnx and openvino)"
    )
    add_graph_arguments(graph)
    add_check_arguments(parser)
    parts.add_exp_arguments(parser)
    return parser


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """What is exported."""
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        help="checkpoint to export (default: best_ckpt.pth in the Exp's output folder)",
    )
    parser.add_argument(
        "-expn", "--experiment-name", help="name of the output folder (default: the Exp's exp_name)"
    )


def add_graph_arguments(graph: argparse._ArgumentGroup) -> None:
    """What the graph is to look like: the flags that the official command has too."""
    graph.add_argument("--input", default="images", help="name of the input")
    graph.add_argument("--output", default="output", help="name of the output")
    graph.add_argument(
        "--batch-size", type=parts.positive, default=1, help="number of images in a run"
    )
    graph.add_argument(
        "--dynamic", action="store_true", help="accept any number of images in a run"
    )
    graph.add_argument(
        "--tsize",
        type=parts.side,
        nargs="+",
        metavar=("H", "W"),
        help=(
            "input size in pixels, multiples of 32; one number for a square (default: the "
            "checkpoint's)"
        ),
    )
    graph.add_argument(
        "--slim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="simplify ONNX with onnxslim, if it is installed",
    )


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """What is compared."""
    check = parser.add_argument_group("check")
    check.add_argument(
        "--path",
        type=Path,
        help=(
            "image or folder to compare on, in addition to a synthetic scene (default: "
            "evaluation images, if an Exp is named)"
        ),
    )
    check.add_argument(
        "--conf",
        type=parts.fraction,
        default=0.3,
        help="lowest score of a detection, in the comparison and in the file",
    )
    check.add_argument(
        "--nms",
        type=parts.fraction,
        default=0.45,
        help="IoU threshold of NMS, in the comparison and in the file",
    )
