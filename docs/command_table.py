"""Write the reference of all commands: python docs/command_table.py."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from yolox.tools.door import COMMANDS

PAGE = Path(__file__).parent / "commands.md"
START, END = "<!-- commands: python docs/command_table.py -->\n", "<!-- end of commands -->\n"
_DEFAULT = re.compile(r"\s*\(default: (.+)\)$")
# Their defaults are those of the machine.
_PER_CORE = {
    ("bench", "--threads"),
    ("convert_dota", "--workers"),
    ("ultralytics_bench", "--threads"),
}


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser of a command by its module's name."""
    made: argparse.ArgumentParser = importlib.import_module(
        f"yolox.tools.flags.{module}"
    ).make_parser()
    return made


def rows(module: str) -> Iterator[str]:
    """A row for each flag: its names, values, default and meaning."""
    parser = parser_of(module)
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or "--help" in action.option_strings:
            continue
        text = str(action.help) % {"prog": parser.prog, **vars(action)}
        default = ""
        if found := _DEFAULT.search(text):
            text, default = text[: found.start()], found[1]
        elif any((module, name) in _PER_CORE for name in action.option_strings):
            default = "one for each core"
        elif action.default is not False and action.default not in (None, [], ""):
            default = _shown(action.default)
        cells = (_names(action), _values(action), default, text)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _shown(value: object) -> str:
    if value is True:
        return "on"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        name = action.metavar or action.dest
        return f"`{name if isinstance(name, str) else ' '.join(name)}`"
    return ", ".join(f"`{name}`" for name in action.option_strings)


def _values(action: argparse.Action) -> str:
    if action.choices:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ""
    if not action.option_strings:
        return "one or more" if action.nargs == "+" else ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    kind = getattr(action.type, "__name__", "text")
    kinds = {"Path": "file or folder", "int": "number", "positive": "number", "natural": "number"}
    kinds |= {"float": "number", "fraction": "0 to 1", "side": "pixels", "seed": "number"}
    kinds |= {"number": "number", "_port": "number"}
    value = action.metavar or kinds.get(kind, "text")
    return f"{value} ..." if action.nargs in ("+", "*") else str(value)


def section(name: str, module: str, what: str) -> str:
    """A command's part of the page."""
    script = f"`python tools/{module}.py`"
    head = f"## yolox {name}\n\n{what[0].upper()}{what[1:]}. The script {script} is the same.\n\n"
    if name == "finetune":
        return f"{head}The flags are those of [`yolox train`](#yolox-train).\n"
    table = ["| flag | values | default | meaning |", "|---|---|---|---|", *rows(module)]
    return head + "\n".join(table) + "\n"


def sections() -> str:
    """All commands."""
    return "\n".join(section(name, *told) for name, told in COMMANDS.items())


def page() -> str:
    """The page as it should be."""
    head, rest = PAGE.read_text(encoding="utf-8").split(START)
    return head + START + sections() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
