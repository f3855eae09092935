"""The command line of tools/eval.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts


def make_parser() -> argparse.ArgumentParser:
    """The flags, official ones among them."""
    parser = parts.make_parser(
        "Evaluate a checkpoint, dense or pruned, or a file exported from one, in its own runtime.",
        "python tools/eval.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth --plots -b 32",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        type=Path,
        help=(
            "checkpoint or exported file to evaluate (default: best_ckpt.pth in the Exp's "
            "output folder)"
        ),
    )
    parser.add_argument(
        "-expn", "--experiment-name", help="name of the output folder (default: the Exp's exp_name)"
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=parts.positive,
        default=16,
        help="number of images in a step, over all devices",
    )
    parser.add_argument(
        "--conf",
        type=parts.fraction,
        help="lowest score of a detection (default: the Exp's test_conf)",
    )
    parser.add_argument(
        "--nms", type=parts.fraction, help="IoU threshold of NMS (default: the Exp's nmsthre)"
    )
    parser.add_argument(
        "--tsize",
        type=parts.side,
        help=("side of the square input in pixels, a multiple of 32 (default: the checkpoint's)"),
    )
    parser.add_argument(
        "--seed",
        type=parts.seed,
        help="seed for a data set that draws at random (default: not set)",
    )
    parser.add_argument(
        "--fuse", action="store_true", help="fold batch norms into the convolutions first"
    )
    parser.add_argument(
        "--legacy",
        action="store_true",
        help="scale images as the weights before YOLOX 0.2 expect them",
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="use the test images, which may be without annotations: test_ann in COCO's layout, "
        "test of a data.yaml, test_sets in VOC's",
    )
    parser.add_argument(
        "--speed", action="store_true", help="time forward pass and NMS of each image separately"
    )
    parser.add_argument("--trt", action="store_true", help="not supported, see docs/export.md")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    output = parser.add_argument_group("output")
    parser.add_argument(
        "--whole-images",
        action="store_true",
        help="put the tiles of large images together again, and count by VOC's area rule",
    )
    output.add_argument(
        "--sort",
        choices=("class", "ap", "objects"),
        default="class",
        help="order of the table of classes",
    )
    output.add_argument(
        "--plots",
        nargs="?",
        const="",
        metavar="DIR",
        help=(
            "write curves, the confusion matrix and metrics.json into DIR, or into "
            "eval/CHECKPOINT in the output folder if none is named (default: write none)"
        ),
    )
    output.add_argument(
        "--save-detections",
        type=Path,
        metavar="FILE",
        help="write the detections in COCO's JSON format",
    )
    parts.add_device_arguments(parser)
    parts.add_openvino_precision(parser.add_argument_group("exported files"))
    parts.add_exp_arguments(parser)
    parser.set_defaults(precision="fp32")
    return parser
