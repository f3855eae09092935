"""Every line of command in the pages is one that its command takes; nothing is run."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, command, inline_code, name, shell_lines
from tests.runs import REPO
from yolox.exp import VOCExp, YOLOExp
from yolox.tools.door import COMMANDS
from yolox.utils.errors import UserError

PAGE = pytest.mark.parametrize("page", PAGES, ids=name)
MODULES = sorted({module for module, _ in COMMANDS.values()} | {"export_onnx"})
# Flags of other programs, and of the command yolox itself.
FOREIGN = {"--version", "--help", "--shm-size", "--cpus", "--cpus-per-task"}
LOGGERS = ("wandb-", "mlflow-")


def parser_of(module: str):
    return import_module(f"yolox.tools.flags.{module}").make_parser()


def fields(opts: list[str]) -> None:
    """Set fields as a command does, in an Exp of either layout. Raises UserError."""
    pairs = list(zip(opts[::2], opts[1::2], strict=True))
    words = [word for pair in pairs if not pair[0].startswith(LOGGERS) for word in pair]
    try:
        VOCExp().merge(words)
    except UserError:
        YOLOExp().merge(words)


def check(words: list[str]) -> None:
    """Parse a line of command. Raises UserError where the command would refuse it."""
    found = command(words)
    if found is None:
        raise UserError(f"no such command: {shlex.join(words)}")
    module, rest = found
    args = parser_of(module).parse_args(rest)
    opts = list(getattr(args, "opts", []))
    if module == "ultralytics_train":
        assert all("=" in word for word in opts)
        return
    if module == "check_data" and len(opts) % 2:
        opts = opts[1:]  # a path to a data set
    if len(opts) % 2:
        raise UserError(f"a field without a value: {shlex.join(words)}")
    fields(opts)


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands in backticks that have flags; one that ends in a flag just names it."""
    for text in inline_code(page):
        if re.match(r"(yolox|python tools/\w+\.py) (.* )?-", text) and "COMMAND" not in text:
            words = shlex.split(text.replace("...", "X"))
            if not words[-1].startswith("-"):
                yield words


@PAGE
def test_lines_of_command(page: Path) -> None:
    wrong = []
    for words in [*shell_lines(page), *inline_commands(page)]:
        if words[:2] == ["yolox", "--version"] or words[:2] == ["yolox", "--help"]:
            continue
        if words[0] == "yolox" or any(re.fullmatch(r"tools/\w+\.py", word) for word in words):
            try:
                check(words)
            except UserError as error:
                wrong.append(f"{shlex.join(words)}: {error}")
        for word in words:
            if re.fullmatch(r"benchmarks/\w+\.py", word) and not (REPO / word).is_file():
                wrong.append(f"{word} is not there")
    assert not wrong, "\n".join(wrong)


@PAGE
def test_flags_and_commands_that_are_named(page: Path) -> None:
    flags = {flag for m in MODULES for a in parser_of(m)._actions for flag in a.option_strings}
    for script in (REPO / "benchmarks").glob("*.py"):
        flags |= set(re.findall(r'"(--[\w-]+)"', script.read_text(encoding="utf-8")))
    wrong = set()
    for text in inline_code(page):
        wrong |= set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text)) - flags - FOREIGN
        if (found := re.fullmatch(r"yolox ([a-z-]+(?: [a-z]+)?)", text)) and not (
            {found[1], found[1].split()[0]} & COMMANDS.keys()
        ):
            wrong.add(text)
        for script in re.findall(r"tools/\w+\.py", text):
            if not (REPO / script).is_file():
                wrong.add(script)
    assert not wrong


def test_a_wrong_line_is_found() -> None:
    for line in (
        "yolox prune --no-such-flag 1",
        "yolox prun --mode list",
        "python tools/train.py -f exps/yolox_voc_s.py max_epochs 5",
        "yolox train -n yolox-s max_epoch five",
        "yolox bench",
    ):
        with pytest.raises(UserError):
            check(shlex.split(line))


def test_nothing_is_said_to_be_on_pypi() -> None:
    for page in PAGES:
        assert "pip install yolox" not in page.read_text(encoding="utf-8").replace('"', "")


def test_reference_of_commands_is_current() -> None:
    made = runpy.run_path(str(REPO / "docs" / "command_table.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run docs/command_table.py"
    rows = [line for line in made["sections"]().splitlines() if line.startswith("| `")]
    assert all(len(row.split(" | ")[-1].split()) > 2 for row in rows)
