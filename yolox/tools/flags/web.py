"""The command line of tools/web.py."""

from __future__ import annotations

import argparse

from yolox.tools.flags import parts
from yolox.utils.choices import CONF, HOST, NMS, PORT


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Serve a page on this machine to try models: drop a picture or use the camera, see what "
        "each model finds, and move the threshold.",
        "python tools/web.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth pruned.onnx",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        nargs="+",
        required=True,
        help="checkpoints, exported files, or published names such as yolox_nano",
    )
    parser.add_argument(
        "--conf", type=parts.fraction, default=CONF, help="where the threshold starts"
    )
    parser.add_argument(
        "--nms",
        type=parts.fraction,
        help=f"IoU threshold of NMS (default: {NMS}, or that of the exported file)",
    )
    parser.add_argument(
        "--tsize",
        type=parts.side,
        help="side of the square input in pixels, a multiple of 32 (default: each model's)",
    )
    parts.add_device(parser)
    parser.add_argument(
        "--host", default=HOST, help="address to serve at; 0.0.0.0 lets other machines connect"
    )
    parser.add_argument("--port", type=_port, default=PORT, help="port to serve at")
    return parser


def _port(text: str) -> int:
    value = parts.positive(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535, got {text}")
    return value
