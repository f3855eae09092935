"""The way into every command: its words are read before anything that takes long is imported.

A mistake in them, or a wish for help, is answered at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from loguru import logger

from yolox import __version__
from yolox.utils.cores import limit_threads_to_share
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger

# Subcommand: the module that does it, and what it does.
COMMANDS = {
    "train": ("train", "train a model on your images, or continue a stopped run"),
    "finetune": ("finetune", "train a pruned checkpoint further"),
    "prune": (
        "prunmodel",
        "remove channels from a checkpoint; list its layers; save a whole model",
    ),
    "eval": ("eval", "measure the AP of a checkpoint or an exported file"),
    "predict": ("demo", "detect objects in images, a video or a camera's pictures"),
    "export": ("export", "write a file for ONNX, OpenVINO, ncnn or TorchScript, and check it"),
    "quantize": ("quantize", "write an INT8 file, and measure its AP"),
    "bench": ("bench", "measure latency, throughput, memory and size in several runtimes"),
    "compress": ("compress", "prune, fine-tune, export and measure a checkpoint in one command"),
    "report": ("report", "compare models in one HTML file"),
    "compare": ("compare", "compare checkpoints in a table"),
    "sensitivity": ("sensitivity", "measure what pruning each layer alone costs"),
    "check-data": ("check_data", "show what is in a data set, and what is wrong with it"),
    "convert-dota": ("convert_dota", "cut DOTA's images into tiles"),
    "plot-bn": ("plot_bn", "draw the scales of batch norms"),
    "web": ("web", "serve a page to try models in the browser"),
    "ultralytics prune": (
        "ultralytics_prune",
        "prune a detector of Ultralytics (YOLOv5u, v8, 11 and others)",
    ),
    "ultralytics train": ("ultralytics_train", "train it further in Ultralytics' own trainer"),
    "ultralytics bench": ("ultralytics_bench", "compare models of Ultralytics"),
    "quickstart": ("quickstart", "run the whole chain on built-in data, in about five minutes"),
    "env": ("env", "print versions, devices and runtimes, for a bug report"),
}


# What a pruned file needs no command of ours for.
_THEIRS = ("val", "predict", "export", "benchmark", "track")


def run(module: str, argv: Sequence[str] | None = None, *, called: str = "") -> None:
    """Run a command of `yolox.tools` by its module's name, and leave the process with its status.

    Args:
        module: as ``train``.
        argv: its words, those of the process by default.
        called: what the person calls it by, for the help; the script's name by default.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    # Before PyTorch is imported: what Apple's accelerator lacks is computed on the CPU.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    make_parser = importlib.import_module(f"yolox.tools.flags.{module}").make_parser
    parser = make_parser()
    if called:
        parser.prog = called
        parser.epilog = parser.epilog.replace(f"python tools/{module}.py", called)
    try:
        parser.parse_args(words)
    except UserError as error:
        _fail(error)
    if module == "env":  # it also tells where what the other commands import is broken
        importlib.import_module("yolox.tools.env").main(words)
        return
    limit_threads_to_share()
    cli = importlib.import_module("yolox.tools.cli")
    cli.entry(importlib.import_module(f"yolox.tools.{module}").main, make_parser, words)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``yolox``: a subcommand and its words."""
    words = sys.argv[1:] if argv is None else list(argv)
    name = words[0] if words else "--help"
    if " ".join(words[:2]) in COMMANDS:  # some are of two words
        name = " ".join(words[:2])
    family = [command for command in COMMANDS if command.startswith(f"{name} ")]
    if name in ("-h", "--help"):
        print(_help(list(COMMANDS), "yolox train -n yolox-s --data photos"))
    elif family and words[1:] in ([], ["-h"], ["--help"]):
        print(_help(family, f"yolox {family[0]} --help"))
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS:
        run(COMMANDS[name][0], words[len(name.split()) :], called=f"yolox {name}")
    else:
        typed = " ".join(words[:2]) if family else name
        _fail(UserError(f"there is no command {typed!r}{_near(words)} yolox --help lists them all"))


def _near(words: Sequence[str]) -> str:
    """What may have been meant by words that are no command; of one of two words, both."""
    if len(words) > 1 and words[0] == "ultralytics" and words[1] in _THEIRS:
        return f": `yolo {words[1]}`, of Ultralytics itself, takes pruned files too;"
    of_two = [name for name in COMMANDS if name.split()[0] == words[0]]
    typed = " ".join(words[:2]) if of_two else words[0]
    near = difflib.get_close_matches(typed, of_two or COMMANDS, n=3) or of_two
    return f", did you mean {' or '.join(near)}?" if near else ":"


def _help(names: Sequence[str], example: str) -> str:
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name][1]}" for name in names]
    return "\n".join(
        (
            "usage: yolox COMMAND ...",
            "",
            "Train, prune, measure and run detectors.",
            "",
            *lines,
            "",
            "yolox COMMAND --help lists the flags of a command.",
            "example:",
            f"  {example}",
        )
    )


def _fail(error: UserError) -> None:
    setup_logger()
    logger.error(str(error))
    sys.exit(1)


if __name__ == "__main__":
    main()
