"""What command lines are made of: help format, kinds of values, Exp and device flags."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import NoReturn

from yolox.export.runtimes import OPENVINO_PRECISIONS
from yolox.utils.choices import MAX_SEED, PRECISIONS
from yolox.utils.errors import UserError

DEFAULT_EXP = Path("exps/yolox_voc_s.py")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Examples as written, and the defaults that the help texts leave to the parser."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default not in (None, False) and action.default not in ([], "")
        text = super()._get_help_string(action) if told else action.help
        if not text or not action.option_strings or action.dest in ("help", "version"):
            return text
        if action.required:
            return f"{text} (required)"
        if "(default:" in text:
            return text
        return f"{text} (default: {'off' if action.nargs == 0 else 'none'})"


class _Parser(argparse.ArgumentParser):
    """Flags and words in any order: a word too many leaves the flags behind it flags."""

    stray = ""  # what is said of flags that there are not

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        hint = f": {self.stray}" if self.stray and message.startswith("unrecognized") else ""
        for action in self._actions:
            lists = action.nargs in ("+", "*") and action.choices
            if lists and message.startswith(f"argument {'/'.join(action.option_strings)}: invalid"):
                hint = ": a list ends at the next flag, so write fields of the Exp before it"
        raise UserError(f"{message}{hint} (--help lists the flags)")


def positive(text: str) -> int:
    """A flag's value as an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def natural(text: str) -> int:
    """A flag's value as an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def seed(text: str) -> int:
    """A flag's value as a seed of random numbers."""
    value = natural(text)
    if value > MAX_SEED:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_SEED}, got {text}")
    return value


def minutes(text: str) -> float:
    """A flag's value as a time, 0 or more."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return value


def fraction(text: str) -> float:
    """A flag's value as a number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def side(text: str) -> int:
    """A flag's value as an image side in pixels, a multiple of 32."""
    value = positive(text)
    if value % 32:
        raise argparse.ArgumentTypeError(f"must be a multiple of 32, got {text}")
    return value


def make_parser(description: str, example: str, *, stray: str = "") -> argparse.ArgumentParser:
    """A parser whose errors are `UserError`.

    Args:
        description: what the command does.
        example: at the end of its help.
        stray: what is said of flags that there are not, beside their names.
    """
    parser = _Parser(
        description=description, epilog=f"example:\n  {example}", formatter_class=_HelpFormatter
    )
    parser.stray = stray
    return parser


def add_exp_arguments(parser: argparse.ArgumentParser) -> None:
    """The Exp: ``-f`` or ``-n``, and ``key value`` overrides at the end."""
    group = parser.add_argument_group("Exp")
    group.add_argument(
        "-f",
        "--exp_file",
        type=Path,
        help=f"Exp file (default: {DEFAULT_EXP}, if -n is not given either)",
    )
    group.add_argument(
        "-n",
        "--name",
        help=(
            "built-in Exp instead of a file: yolox-nano, yolox-tiny, yolox-s, yolox-m, "
            "yolox-l, yolox-x or yolov3"
        ),
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help=(
            "data set in the VOC, COCO or YOLO layout, or DOTA tiles; the layout is "
            "detected (default: the data that the Exp names)"
        ),
    )
    group.add_argument(
        "opts", nargs="*", default=[], help="fields of the Exp to set, as pairs: key value ..."
    )


def add_device(group: argparse._ActionsContainer) -> None:
    """Of every command that runs a network."""
    group.add_argument(
        "--device",
        default="auto",
        help=(
            "where to compute: cpu, gpu, or the name of an accelerator, such as cuda, cuda:1, mps "
            "or xpu; auto is the accelerator if there is one, otherwise the CPU"
        ),
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Devices, machines and precision."""
    group = parser.add_argument_group("devices")
    add_device(group)
    group.add_argument(
        "-d",
        "--devices",
        type=positive,
        help=(
            "number of processes on this machine (default: one for each GPU, or 1 on a CPU); on a "
            "--device with a number all of them use that one"
        ),
    )
    group.add_argument("--num_machines", type=positive, default=1, help="number of machines")
    group.add_argument(
        "--machine_rank", type=natural, default=0, help="number of this machine, from 0"
    )
    group.add_argument(
        "--dist-url",
        help=(
            "address of the first machine, tcp://HOST:PORT, if there are several (default: none)"
        ),
    )
    group.add_argument(
        "--dist-backend",
        help=argparse.SUPPRESS,  # of old command lines: nccl on GPUs, gloo on CPUs
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="arithmetic; auto is bf16 if the processor has it, otherwise fp32",
    )
    group.add_argument(
        "--fp16", action="store_true", help="mixed precision: fp16 on a GPU, bf16 on a CPU"
    )


def experimental(parser: argparse.ArgumentParser, why: str) -> argparse._ArgumentGroup:
    """The group of flags that were measured here to help little or not at all."""
    return parser.add_argument_group("experimental", f"{why}: see docs/results.md")


def add_steps(group: argparse._ActionsContainer, step_epochs: int) -> None:
    """Of every command that prunes in rounds; it has its own number of epochs between two."""
    group.add_argument(
        "--steps",
        type=positive,
        default=1,
        help="number of rounds of pruning, with training between two rounds",
    )
    group.add_argument(
        "--step-epochs",
        type=positive,
        default=step_epochs,
        help="epochs of training between two rounds",
    )


def add_openvino_precision(group: argparse._ActionsContainer) -> None:
    """Of every command that runs OpenVINO."""
    group.add_argument(
        "--openvino-precision",
        choices=OPENVINO_PRECISIONS,
        default="f32",
        help=("arithmetic of OpenVINO; 'default' lets OpenVINO choose, which is bf16 on some CPUs"),
    )
