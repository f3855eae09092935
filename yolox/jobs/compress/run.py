"""Stages one after the other, each done once: a run that was stopped goes on where it was."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from yolox.jobs.compress.record import Record
from yolox.jobs.compress.stage import Stage
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed

TRAINED_CHECKPOINT = "latest_ckpt.pth"  # what an epoch of the trainer leaves


def run_stages(
    stages: Sequence[Stage],
    record: Record,
    *,
    on_result: Callable[[Stage, object], None] | None = None,
) -> None:
    """Run what is not done yet, in order; a stage that fails ends the run, and what is done stays.

    Args:
        stages: each may read the outputs of those before it.
        record: of the folder.
        on_result: is told what a stage returned.
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
        logger.info(f"{title}{', continued where it stopped' if resumes else ''}\n$ {stage.line()}")
        start = time.monotonic()
        result = stage.run(resumes=resumes)
        missing = [str(output) for output in stage.outputs if not output.is_file()]
        if missing:
            raise UserError(f"{title}: it ended without writing {', '.join(missing)}")
        record.end(stage, time.monotonic() - start)
        if on_result is not None:
            on_result(stage, result)


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
            if record.has_made(folder) and not any(folder.rglob(TRAINED_CHECKPOINT)):
                shutil.rmtree(folder)
                continue
            aside = _unused(folder)
            folder.rename(aside)
        except OSError as error:
            raise UserError(
                f"{stage.name} runs again, and {folder} cannot be put out of its way "
                f"({error.strerror}): choose another output folder"
            ) from error
        logger.warning(f"{stage.name} runs again: what was there is kept in {aside}")


def _unused(path: Path) -> Path:
    """The first of ``<path>_old1``, ``<path>_old2`` and so on that is not there."""
    names = (path.with_name(f"{path.name}_old{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
