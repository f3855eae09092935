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
        "-c", "--ckpt", type=Path, help="checkpoint or exported file (the Exp's best_ckpt.pth)"
    )
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
    parser.add_argument(
        "-b",
        "--batch-size",
        type=parts.positive,
        default=16,
        help="images a step, over all devices",
    )
    parser.add_argument(
        "--conf", type=parts.fraction, help="least score of a detection (the Exp's)"
    )
    parser.add_argument("--nms", type=parts.fraction, help="IoU of NMS (the Exp's)")
    parser.add_argument("--tsize", type=parts.side, help="square test size (the checkpoint's)")
    parser.add_argument(
        "--seed", type=parts.seed, help="of a data set that draws at random (unset)"
    )
    parser.add_argument("--fuse", action="store_true", help="fold batch norms first")
    parser.add_argument(
        "--legacy", action="store_true", help="input scaling of weights before YOLOX 0.2"
    )
    parser.add_argument(
        "--test", action="store_true", help="test-dev: images without annotations, as the Exp says"
    )
    parser.add_argument(
        "--speed", action="store_true", help="time forward and NMS of each image alone"
    )
    parser.add_argument("--trt", action="store_true", help="not supported, see docs/export.md")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    output = parser.add_argument_group("output")
    parser.add_argument(
        "--whole-images",
        action="store_true",
        help="put DOTA's tiles back together, and count by VOC's area rule",
    )
    output.add_argument(
        "--sort", choices=("class", "ap", "objects"), default="class", help="the table by class"
    )
    output.add_argument(
        "--plots",
        nargs="?",
        const="",
        metavar="DIR",
        help="write curves, confusion matrix, metrics.json (eval/CHECKPOINT in the output folder)",
    )
    output.add_argument(
        "--save-detections", type=Path, metavar="FILE", help="write detections as COCO's JSON"
    )
    parts.add_device_arguments(parser)
    parts.add_openvino_precision(parser.add_argument_group("exported files"))
    parts.add_exp_arguments(parser)
    parser.set_defaults(precision="fp32")
    return parser
