"""Train a model, or fine-tune a pruned one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from loguru import logger

from yolox.core import make_fabric
from yolox.exp import TrainOptions, build_trainer
from yolox.tools import cli
from yolox.utils.logger import setup_logger


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, train."""
    parser = cli.make_parser(
        "Train a YOLOX on your images; with -c a pruned checkpoint, fine-tune it.",
        "python tools/train.py -f exps/yolox_voc_s.py -b 16 max_epoch 50",
    )
    parser.add_argument("-c", "--ckpt", type=Path, help="weights to start from")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a stopped run: -c's, or the output folder's latest_ckpt.pth",
    )
    parser.add_argument(
        "-b", "--batch-size", type=cli.positive, help="images a step, over all devices (the Exp's)"
    )
    parser.add_argument("-expn", "--experiment-name", help="name of the output folder (the Exp's)")
    parser.add_argument("--act", help="activation: silu, mish, relu or lrelu (the Exp's)")
    parser.add_argument(
        "-o",
        "--occupy",
        action="store_true",
        help="accepted for old command lines; memory is not reserved ahead",
    )
    cli.add_device_arguments(parser)
    cli.add_exp_arguments(parser)
    args = parser.parse_args(argv)

    exp = cli.load_exp(args)
    precision = args.precision
    if args.fp16:
        precision = "fp16" if torch.cuda.is_available() else "bf16"
    fabric = make_fabric(devices=args.devices, num_nodes=args.num_machines, precision=precision)
    fabric.launch()
    options = TrainOptions(
        checkpoint=args.ckpt,
        resume=args.resume,
        batch_size=args.batch_size,
        act=args.act,
        name=args.experiment_name,
    )
    trainer, resume = build_trainer(exp, fabric, options)
    folder = trainer.settings.output_dir
    setup_logger(folder / "train_log.txt", quiet=not fabric.is_global_zero)
    logger.info(
        f"{exp.exp_name}: {exp.num_classes} classes ({', '.join(exp.class_names)}), "
        f"{len(trainer.image_names)} training images, {exp.max_epoch} epochs, "
        f"{fabric.world_size} × {fabric.device.type}, precision {trainer.recipe['precision']}, "
        f"output in {folder}"
    )
    trainer.train(resume)


if __name__ == "__main__":
    cli.entry(main)
