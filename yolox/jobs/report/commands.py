"""The command lines that made the models of a report, and what they asked for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolox.report import Fact
from yolox.utils.documents import read_json
from yolox.utils.errors import UserError

_PRUNING = (["tools/prunmodel.py"], ["prune"])  # second word of a line that prunes


def commands_of(paths: Sequence[Path], compress: Path | None, own: str) -> tuple[str, ...]:
    """The lines that made all this, in order: the pipeline's, or those told beside the files."""
    commands = []
    if compress is not None:
        stages = read_object(compress, "`yolox.compress`").get("stages", [])
        try:
            commands = [text_of(stage["command"]) for stage in stages.values()]
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{compress} is not a compress.json of `yolox.compress`: its stages have no "
                "commands"
            ) from error
    else:
        records = [path.with_suffix(".report.json") for path in paths]
        found = [read_object(path, "`yolox.prune`") for path in records if path.is_file()]
        commands = [str(record["command"]) for record in found if record.get("command")]
    return tuple(dict.fromkeys([*commands, *([own] if own else [])]))


def targets_of(commands: Sequence[str]) -> tuple[Fact, ...]:
    """The target of each pruning: of one in steps, a checkpoint knows those of its steps alone."""
    targets = []
    for command in commands:
        try:
            words = shlex.split(command)
        except ValueError:  # no command line: shown as it is
            continue
        if words[1:2] in _PRUNING and "--target" in words[:-1]:
            targets.append(words[words.index("--target") + 1])
    return tuple(Fact(name="target", value=target) for target in dict.fromkeys(targets))


def read_object(path: Path, origin: str) -> dict[str, Any]:
    """A JSON object in a file; `origin` is the function that writes such files.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give the file of {origin}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a file of {origin}: expected a JSON object")
    return content


def text_of(value: Any) -> str:
    """The value, which has to be a text."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {str(value)[:60]}")
    return value
