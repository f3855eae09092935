"""What has been done of a compression, and with which arguments."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolox.jobs.compress.stage import Stage
from yolox.utils import schema
from yolox.utils.documents import json_text, read_json
from yolox.utils.errors import UserError
from yolox.utils.files import write_text

_STAGE = schema.record(
    {"mark": schema.text(), "command": schema.text()}, {"seconds": schema.number(low=0)}
)
_RECORD = schema.record(
    {"stages": schema.mapping(_STAGE), "folders": schema.listing(schema.text())}
)


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
                schema.require(content, _RECORD, "it is not what `yolox.compress` writes")
                self._stages = dict(content["stages"])
                self._made = set(content["folders"])
            except (OSError, ValueError) as error:
                raise UserError(
                    f"cannot read {path} ({error}): delete it to start again, or choose another "
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
                for word in (*stage.flags(), *stage.fields())
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
        write_text(self._path, json_text(content, indent=1) + "\n")
