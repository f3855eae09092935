"""The command line of tools/export_onnx.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.settings import OPSET
from yolox.tools.flags import parts
from yolox.tools.flags.export import (
    add_check_arguments,
    add_graph_arguments,
    add_source_arguments,
)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Export a checkpoint, dense or pruned, to ONNX. The file is run in onnxruntime, and kept "
        "if it computes what PyTorch computes. tools/export.py has more formats and flags.",
        "python tools/export_onnx.py -c YOLOX_outputs/yolox_voc_s/pruned.pth "
        "--output-name model.onnx --decode_in_inference",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--output-name", type=Path, default=Path("yolox.onnx"), help="file to write"
    )
    graph = parser.add_argument_group("graph")
    graph.add_argument("-o", "--opset", type=parts.positive, default=OPSET, help="ONNX opset")
    graph.add_argument(
        "--decode_in_inference",
        dest="decode",
        action="store_true",
        help="write boxes in pixels instead of the offsets and log sizes of the head",
    )
    graph.add_argument(
        "--no-onnxsim", dest="slim", action="store_false", help="the same as --no-slim"
    )
    add_graph_arguments(graph)
    add_check_arguments(parser)
    parts.add_exp_arguments(parser)
    parser.set_defaults(format="onnx", dynamic_size=False, nms_in_graph=False, half=False)
    return parser
