"""A stage of a compression: a job with its arguments, and the command line that does the same."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


def script_line(tool: str, *words: str) -> str:
    """The line of a script of tools/ and its words."""
    return f"python tools/{tool}.py {shlex.join(words)}"


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A job that is done once, and what it leaves. Subclasses add its arguments.

    Attributes:
        name: of the stage, once in a run.
        outputs: files that are there when it is done.
        folders: its own, removed before it is begun anew.
        seconds: that it is expected to take.
        checkpoint: where this is there, a stage that was cut off is resumed from it.
        write_line: a command's name and words as a line, the way that the person calls commands.
        device: where it computes, see `yolox.utils.device.resolve_device`.
    """

    tool: ClassVar[str]  # name of the command's file in tools/, for the line
    goes_on: ClassVar[bool] = False  # whether the job itself goes on where it was cut off

    name: str
    outputs: tuple[Path, ...]
    folders: tuple[Path, ...] = ()
    seconds: float = 0.0
    checkpoint: Path | None = None
    write_line: Callable[..., str] = script_line
    device: str = "auto"

    @abstractmethod
    def run(self, *, resumes: bool = False) -> object:
        """Do it; returns what there is to show of it."""

    @abstractmethod
    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        """The job's arguments as the command's flags."""

    def named_recipe(self) -> tuple[str, ...]:
        """Words that name the Exp and set its fields for all stages; the origin tells of them."""
        return ()

    def fields(self) -> tuple[object, ...]:
        """Names and values of Exp fields that this stage sets beside them."""
        return ()

    def words(self, *, resumes: bool = False) -> list[str]:
        """The command's arguments."""
        place = () if self.device == "auto" else ("--device", self.device)
        words = (*self.flags(resumes=resumes), *place, *self.named_recipe(), *self.fields())
        return list(map(str, words))

    def line(self) -> str:
        """The command as a person would type it."""
        return self.write_line(self.tool, *self.words())
