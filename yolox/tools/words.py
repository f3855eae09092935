"""What the library says of Python calls, said as command lines, the way the person calls them."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yolox.tools.door import COMMANDS

# What messages call by its Python name, and the module and words of the command that does it.
FUNCTIONS = {
    "yolox.train": "train",
    "yolox.export_model": "export",
    "yolox.compress": "compress",
    "yolox.data.doctor": "check_data",
    "yolox.data.generate_demo_dataset": "quickstart",
    "yolox.data.convert": "convert_dota",
    "yolox.exp.follow.with_names": "prunmodel --mode save -o named.pth class_names NAME,NAME,…",
    "yolox.jobs.measure": "bench",
    "yolox.jobs.report": "report",
    "yolox.pruning.trace_groups": "prunmodel --mode list",
    "yolox.prune": "prunmodel",
    "yolox.ultralytics.PrunedTrainer": "ultralytics_train",
    "yolox.ultralytics.prune_detector": "ultralytics_prune",
}
# Arguments whose flags are called otherwise: their places in a parsed command line, the first
# that a command has.
_PLACES = {
    "batches": ("batch",),
    "checkpoint": ("ckpt", "files"),
    "evaluate": ("eval",),
    "exp": ("exp_file",),
    "exp_name": ("name",),
    "folder": ("output",),
    "images": ("images", "path"),
    "name": ("experiment_name",),
    "names": ("exp_file",),
    "output": ("output_name", "output"),
    "size": ("tsize", "size"),
    "teacher": ("distill",),
    "time_it": ("latency",),
}
_QUOTED = re.compile(r"`([A-Za-z_][\w.]*)(?:=([^`]+))?`")


def called(module: str) -> str:
    """How the person calls a command of `yolox.tools`: by ``yolox``, or by the scripts of tools/.

    Args:
        module: its module's name, as ``prunmodel``.
    """
    names = [name for name, (own, _) in COMMANDS.items() if own == module]
    if names and Path(sys.argv[0]).stem in ("yolox", "door"):
        return f"yolox {names[0]}"
    return f"python tools/{module}.py"


def command_line(module: str, *words: object) -> str:
    """A command line to copy."""
    return shlex.join([*called(module).split(), *map(str, words)])


def speaker(parser: argparse.ArgumentParser) -> Callable[[str], str]:
    """Says messages of the library as this command's.

    In those, what stands in backticks is Python: an argument, as ``ignore``, an argument with its
    value, as ``resume=True``, or a function, as ``yolox.train``. It becomes the flag or the
    command; what this command has no flag for stays.
    """
    return partial(_QUOTED.sub, partial(_said, parser))


def _said(parser: argparse.ArgumentParser, found: re.Match[str]) -> str:
    name, value = found.groups()
    functions = FUNCTIONS | (parser.get_default("functions") or {})
    if name in functions:
        module, *words = functions[name].split()
        return " ".join([called(module), *words])
    flags = _flags(parser, name)
    if not flags:
        return found[0]
    if value is None or value == "True":
        return flags[0]
    if value == "False":
        return next((flag for flag in flags if flag.startswith("--no-")), f"no {flags[0]}")
    try:
        values = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        values = value
    values = values if isinstance(values, (list, tuple)) else [values]
    return f"{flags[0]} {shlex.join(map(str, values))}"


def _flags(parser: argparse.ArgumentParser, name: str) -> list[str]:
    for place in _PLACES.get(name, (name,)):
        for action in parser._actions:
            if action.dest == place:
                return list(action.option_strings) or [str(action.metavar or action.dest)]
    return []
