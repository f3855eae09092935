"""The whole road on the built-in data: train, prune, fine-tune, evaluate, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from yolox.data import generate_demo_dataset
from yolox.tools import cli, compare, demo, prunmodel, train
from yolox.tools.flags.quickstart import make_parser
from yolox.tools.words import command_line
from yolox.utils.device import resolve_device

EXP = "exps/yolox_demo.py"
DATA = Path("datasets/demo")
OUTPUT = Path("YOLOX_outputs/yolox_demo")
FINETUNED = Path("YOLOX_outputs/yolox_demo_finetune")


def _step(command: Callable[[Sequence[str] | None], None], name: str, *args: object) -> None:
    """Run one of the commands, showing the line that would run it by hand."""
    words = [str(arg) for arg in args]
    logger.info(f"$ {command_line(name, *words)}")
    command(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the road and say what to do next."""
    args = make_parser().parse_args(argv)
    resolve_device(args.device)  # before anything is written
    devkit = generate_demo_dataset(DATA)
    trained, pruned, tuned = (
        OUTPUT / "best_ckpt.pth",
        OUTPUT / "pruned.pth",
        FINETUNED / "best_ckpt.pth",
    )
    place = ("--device", args.device)
    _step(train.main, "train", "-f", EXP, *place)
    cut = ["--mode", "global", "--ch-sparsity", args.ch_sparsity]
    _step(prunmodel.main, "prunmodel", "-f", EXP, "--overwrite", *cut, *place)
    epochs = ["max_epoch", 20, "no_aug_epochs", 5]
    _step(train.main, "train", "-f", EXP, "-c", pruned, "--overwrite", *place, *epochs)
    labels = ["--labels", "trained", "pruned", "pruned + fine-tuned"]
    _step(compare.main, "compare", "-f", EXP, "-c", trained, pruned, tuned, *labels, *place)
    images = devkit / "VOC2007" / "JPEGImages" / "demo_00160.jpg"  # of the test split
    _step(demo.main, "demo", "-c", tuned, "--path", images, *place)
    yours = ("-n", "yolox-s", "--data", "photos")
    lines = (
        command_line("check_data", "photos"),
        command_line("train", *yours, "-c", "yolox_s", "max_epoch", 40),
        command_line("prunmodel", *yours, "--target", "macs=0.5"),
        command_line("finetune", *yours, "-c", "YOLOX_outputs/yolox_s/pruned.pth", "max_epoch", 20),
    )
    logger.info(
        f"done. The trained model is {trained}, the pruned and fine-tuned one {tuned}.\n"
        "Next, on your own images, photos being their folder in the VOC, COCO or YOLO layout:\n"
        "  " + "\n  ".join(lines)
    )


if __name__ == "__main__":
    cli.entry(main, make_parser)
