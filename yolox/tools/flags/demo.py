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
        "Detect objects in an image, a folder, a video or a camera's pictures; what is found is "
        "drawn and written to --save_dir.",
        "python tools/demo.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth photos",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="[image | video | webcam] PATH",
        help="image, folder, pattern as 'photos/*.jpg', or video; webcam takes --camid instead. "
        "The kind may be left out",
    )
    parser.add_argument(
        "-c", "--ckpt", type=Path, help="checkpoint or exported file (the Exp's best_ckpt.pth)"
    )
    parser.add_argument("--path", help="the same as PATH")
    parser.add_argument("--camid", type=parts.natural, default=0, help="number of the camera")
    parser.add_argument(
        "--save_dir", type=Path, default=Path("YOLOX_outputs/demo"), help="where pictures go"
    )
    parser.add_argument(
        "--save_result",
        action="store_true",
        help="write a camera's pictures as a video; all others are written anyway",
    )
    parser.add_argument(
        "--conf",
        type=parts.fraction,
        help=f"least score of a detection ({CONF}; an exported file's own)",
    )
    parser.add_argument(
        "--nms", type=parts.fraction, help=f"IoU of NMS ({NMS}; an exported file's own)"
    )
    parser.add_argument("--tsize", type=parts.side, help="square test size (the checkpoint's)")
    parser.add_argument("--legacy", action="store_true", help="input of the oldest weights: RGB")
    parser.add_argument("--fuse", action="store_true", help="fold batch norms first")
    parser.add_argument("--fp16", action="store_true", help="half precision (bf16 on a CPU)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="where to run (a GPU where there is one)"
    )
    large = parser.add_argument_group("large images")
    large.add_argument(
        "--tile", type=parts.positive, help="detect in tiles of this side, pixels, and merge"
    )
    large.add_argument(
        "--overlap", type=parts.natural, default=TILE_OVERLAP, help="of neighbouring tiles, pixels"
    )
    exp = parser.add_argument_group("recipe, which names the checkpoint where -c does not")
    exp.add_argument("-f", "--exp_file", type=Path, help="Exp file")
    exp.add_argument("-n", "--name", help="built-in Exp: yolox-nano … yolox-x, yolov3")
    exp.add_argument("-expn", "--experiment-name", help="output folder's name (the Exp's)")
    return parser
