"""Evaluate a checkpoint on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from loguru import logger

from yolox.exp.prune import follow_checkpoint
from yolox.models import load_model
from yolox.tools import cli
from yolox.utils.model_utils import fuse_model


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, evaluate, print."""
    parser = cli.make_parser(
        "Evaluate a checkpoint, dense or pruned.",
        "python tools/eval.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth",
    )
    parser.add_argument("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    parser.add_argument(
        "-b", "--batch-size", type=cli.positive, default=16, help="images a forward pass"
    )
    parser.add_argument("--conf", type=cli.fraction, help="least score of a detection (the Exp's)")
    parser.add_argument("--nms", type=cli.fraction, help="IoU of NMS (the Exp's)")
    parser.add_argument("--tsize", type=cli.side, help="square test size (the checkpoint's)")
    parser.add_argument("--fuse", action="store_true", help="fold batch norms first")
    parser.add_argument("--fp16", action="store_true", help="half precision (bf16 on a CPU)")
    cli.add_exp_arguments(parser)
    args = parser.parse_args(argv)

    exp = cli.load_exp(args)
    loaded = load_model(args.ckpt or exp.output_folder() / "best_ckpt.pth")
    spec = loaded.spec
    if args.tsize:
        spec = dataclasses.replace(spec, input_size=(args.tsize, args.tsize))
    follow_checkpoint(exp, spec, keep=args.opts[::2])
    exp.test_conf = exp.test_conf if args.conf is None else args.conf
    exp.nmsthre = exp.nmsthre if args.nms is None else args.nms
    evaluator = exp.get_evaluator(args.batch_size)
    model = fuse_model(loaded.model) if args.fuse else loaded.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = "fp16" if device == "cuda" else "bf16"
    result = evaluator.run(
        model.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        device=device,
        precision=half if args.fp16 else "fp32",
    )
    logger.info("\n" + result.summary())


if __name__ == "__main__":
    cli.entry(main)
