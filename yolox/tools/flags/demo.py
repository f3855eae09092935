"""The command line of tools/demo.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.utils.choices import CONF, NMS, TILE_OVERLAP

KINDS = ("image", "video", "webcam")


def make_parser() -> argparse.ArgumentParser:
    """The command line, official flags among them."""
    parser = parts.make_parser(
        "Detect objects in an image, a folder, a video or a camera's pictures, draw them, and "
        "write the pictures to --save_dir.",
        "python tools/demo.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth photos",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="[image | video | webcam] PATH",
        help=(
            "image, folder, pattern such as 'photos/*.jpg', or video; webcam takes --camid "
            "instead. The first word may be left out"
        ),
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        help=(
            "checkpoint, exported file, or a published name such as yolox_s (default: "
            "best_ckpt.pth in the Exp's output folder)"
        ),
    )
    parser.add_argument("--path", help="the same as PATH")
    parser.add_argument("--camid", type=parts.natural, default=0, help="number of the camera")
    parser.add_argument(
        "--save_dir",
        type=Path,
        default=Path("YOLOX_outputs/demo"),
        help="folder to write the pictures into",
    )
    parser.add_argument(
        "--save_result",
        action="store_true",
        help="write the pictures of a camera as a video; everything else is always written",
    )
    parser.add_argument(
        "--conf",
        type=parts.fraction,
        help=f"lowest score of a detection (default: {CONF}, or that of the exported file)",
    )
    parser.add_argument(
        "--nms",
        type=parts.fraction,
        help=f"IoU threshold of NMS (default: {NMS}, or that of the exported file)",
    )
    parser.add_argument(
        "--max-candidates",
        type=parts.positive,
        help=(
            "number of boxes of an image that NMS chooses from, those of the highest scores: "
            "bounds the time of a crowded picture at a low --conf (default: all of them)"
        ),
    )
    parser.add_argument(
        "--tsize",
        type=parts.side,
        help=("side of the square input in pixels, a multiple of 32 (default: the checkpoint's)"),
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="prepare images as the weights before YOLOX 0.2 expect them: RGB, normalized",
    )
    parser.add_argument(
        "--fuse", action="store_true", help="fold batch norms into the convolutions first"
    )
    parser.add_argument(
        "--fp16", action="store_true", help="half precision: fp16 on a GPU, bf16 on a CPU"
    )
    parts.add_device(parser)
    large = parser.add_argument_group("large images")
    large.add_argument(
        "--tile",
        type=parts.positive,
        help="cut images into tiles of this side in pixels, detect in each, and merge",
    )
    large.add_argument(
        "--overlap",
        type=parts.natural,
        default=TILE_OVERLAP,
        help="overlap of neighbouring tiles in pixels",
    )
    exp = parser.add_argument_group("Exp, which names the checkpoint if -c does not")
    exp.add_argument("-f", "--exp_file", type=Path, help="Exp file")
    exp.add_argument(
        "-n",
        "--name",
        help=("built-in Exp: yolox-nano, yolox-tiny, yolox-s, yolox-m, yolox-l, yolox-x or yolov3"),
    )
    exp.add_argument(
        "-expn", "--experiment-name", help="name of the output folder (default: the Exp's exp_name)"
    )
    return parser
