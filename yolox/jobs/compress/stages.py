"""Commands one after the other, each done once: a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.utils import schema
from yolox.utils.documents import read_json
from yolox.utils.errors import UserError
from yolox.utils.files import write_text
from yolox.utils.locks import claimed

TRAINED = "latest_ckpt.pth"  # what an epoch of the trainer leaves

_STAGE = schema.record(
    {"mark": schema.text(), "command": schema.text()}, {"seconds": schema.number(low=0)}
)
_RECORD = schema.record(
    {"stages": schema.mapping(_STAGE), "folders": schema.listing(schema.text())}
)

Command = Callable[[Sequence[str] | None], None]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of the project's commands, and what it leaves.

    Attributes:
        name: of the stage, once in a run.
        tool: name of the command's file in tools/, for the line that a person would type.
        main: the command.
        flags: its own arguments.
        outputs: files that are there when it is done.
        recipe: words that name the Exp and set its fields for all stages; what they decide belongs
            to the origin of the record.
        fields: names and values of Exp fields that this stage sets beside them.
        folders: its own, removed before it is begun anew.
        seconds: that it is expected to take.
        goes_on: whether its command itself goes on where it was cut off.
        checkpoint: where this is there, a stage that was cut off goes on with `resumed` in place of
            `flags`.
        resumed: flags for that.
    """

    name: str
    tool: str
    main: Command
    flags: tuple[object, ...]
    outputs: tuple[Path, ...]
    recipe: tuple[str, ...] = ()
    fields: tuple[object, ...] = ()
    folders: tuple[Path, ...] = ()
    seconds: float = 0.0
    goes_on: bool = False
    checkpoint: Path | None = None
    resumed: tuple[object, ...] = ()

    def words(self, *, resumes: bool = False) -> list[str]:
        """The command's arguments."""
        flags = self.resumed if resumes else self.flags
        return [str(word) for word in (*flags, *self.recipe, *self.fields)]

    def line(self) -> str:
        """The command as a person would type it."""
        return f"python tools/{self.tool}.py {shlex.join(self.words())}"


class Record:
    """What has been done in a folder: a JSON file, rewritten whole as stages begin and end.

    A stage counts as done only by the arguments that it was done with, those of every stage before
    it, and what they all started from. Of a path it does not matter how it is written.
    """

    def __init__(self, path: Path, origin: str) -> None:
        """Args: the file; a digest of what the whole run starts from.

        Raises:
            UserError: the file is there and cannot be read.
        """
        self._path, self._origin = path, origin
        self._stages: dict[str, dict[str, Any]] = {}
        self._made: set[str] = set()  # folders, below that of the file
        if path.is_file():
            try:
                content = read_json(path)
                schema.require(content, _RECORD, "it is not what tools/compress.py writes")
                self._stages = dict(content["stages"])
                self._made = set(content["folders"])
            except (OSError, ValueError) as error:
                raise UserError(
                    f"cannot read {path} ({error}): delete it to begin anew, or choose another "
                    "output folder"
                ) from error

    def keep(self, stages: Sequence[Stage]) -> None:
        """Forget stages that are no part of the run any more; the others come in its order."""
        names = [stage.name for stage in stages]
        self._stages = {name: self._stages[name] for name in names if name in self._stages}

    def marks(self, stages: Sequence[Stage]) -> list[str]:
        """A mark a stage that changes with it, with a stage before it, and with the origin."""
        marks, mark = [], self._origin
        for stage in stages:
            words = [
                str(word.resolve()) if isinstance(word, Path) else str(word)
                for word in (*stage.flags, *stage.fields)
            ]
            text = json.dumps([mark, stage.name, stage.tool, *words])
            mark = hashlib.sha256(text.encode()).hexdigest()
            marks.append(mark)
        return marks

    def is_done(self, stage: Stage, mark: str) -> bool:
        """Whether it ended with this mark and its outputs are still there."""
        entry = self._stages.get(stage.name, {})
        return (
            entry.get("mark") == mark
            and "seconds" in entry
            and all(output.is_file() for output in stage.outputs)
        )

    def was_begun(self, stage: Stage, mark: str) -> bool:
        """Whether it was begun with this mark."""
        return self._stages.get(stage.name, {}).get("mark") == mark

    def begin(self, stage: Stage, mark: str) -> None:
        """Note that a stage begins; those after it are to be done again with what it writes."""
        names = list(self._stages)
        if stage.name in names:
            for name in names[names.index(stage.name) :]:
                del self._stages[name]
        self._stages[stage.name] = {"mark": mark, "command": stage.line()}
        self._made.update(map(self._name, stage.folders))
        self._write()

    def has_made(self, folder: Path) -> bool:
        """Whether it was made by a stage of this run, now or before."""
        return self._name(folder) in self._made

    def _name(self, folder: Path) -> str:
        return os.path.relpath(folder, self._path.parent)

    def end(self, stage: Stage, seconds: float) -> None:
        """Note that it ended, and how long it took since it was begun or resumed."""
        self._stages[stage.name]["seconds"] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        content = {
            "origin": self._origin,
            "stages": self._stages,
            "folders": sorted(self._made),
        }
        write_text(self._path, json.dumps(content, indent=1) + "\n")


def run_stages(stages: Sequence[Stage], record: Record) -> None:
    """Run what is not done yet, in order; a stage that fails ends the run, and what is done stays.

    Args:
        stages: each may read the outputs of those before it.
        record: of the folder.
    """
    record.keep(stages)
    marks = record.marks(stages)
    for number, (stage, mark) in enumerate(zip(stages, marks, strict=True), start=1):
        title = f"stage {number} of {len(stages)}, {stage.name}"
        if record.is_done(stage, mark):
            logger.info(f"{title}: done before")
            continue
        resumes = (
            record.was_begun(stage, mark)
            and stage.checkpoint is not None
            and stage.checkpoint.is_file()
        )
        if not (record.was_begun(stage, mark) and (resumes or stage.goes_on)):
            _clear(stage, record)
        record.begin(stage, mark)
        logger.info(f"{title}{', going on where it was' if resumes else ''}\n$ {stage.line()}")
        start = time.monotonic()
        stage.main(stage.words(resumes=resumes))
        missing = [str(output) for output in stage.outputs if not output.is_file()]
        if missing:
            raise UserError(f"{title}: it ended without writing {', '.join(missing)}")
        record.end(stage, time.monotonic() - start)


def _clear(stage: Stage, record: Record) -> None:
    """Make room for a stage that is begun anew.

    Set aside, not removed, is what no stage made, and what holds trained weights.
    """
    for folder in stage.folders:
        if not folder.exists():
            continue
        with claimed(folder):  # by no other run, that is
            pass
        try:
            if record.has_made(folder) and not any(folder.rglob(TRAINED)):
                shutil.rmtree(folder)
                continue
            aside = _unused(folder)
            folder.rename(aside)
        except OSError as error:
            raise UserError(
                f"{stage.name} is done anew, and {folder} cannot be put out of its way "
                f"({error.strerror}): choose another output folder"
            ) from error
        logger.warning(f"{stage.name} is done anew: what was there is kept in {aside}")


def _unused(path: Path) -> Path:
    """The first of ``<path>_old1``, ``<path>_old2`` and so on that is not there."""
    names = (path.with_name(f"{path.name}_old{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
