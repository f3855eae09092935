"""The checkpoint files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.core.state import Position
from yolox.utils.checkpoint import CheckpointError, save_checkpoint
from yolox.utils.files import remove_leftovers, require_writable
from yolox.utils.tensors import snapshot

LATEST, BEST = "latest_ckpt.pth", "best_ckpt.pth"
MAX_FAILURES = 3  # epochs in a row


class CheckpointFolder:
    """Writes a run's checkpoints.

    An epoch whose files cannot be written is a warning: the disk may be full for a while, and the
    run goes on. `MAX_FAILURES` such epochs in a row are an error, and so is the last epoch.

    Args:
        goes_on: see `TrainSettings`.

    Attributes:
        saved: epochs done according to the latest checkpoint.
        position: in the epoch after them, according to it; None at its start.
    """

    def __init__(self, folder: Path, goes_on: str = "") -> None:
        self.folder = folder
        self.saved = 0
        self.position: Position | None = None
        self._pending: tuple[Future[None], int, Position] | None = None
        self._goes_on = goes_on or f"`checkpoint={str(folder / LATEST)!r}` `resume=True`"
        self._failures = 0

    def prepare(self) -> None:
        """Clear up after a killed run.

        Raises:
            CheckpointError: files cannot be written into the folder.
        """
        require_writable(self.folder, CheckpointError)
        remove_leftovers(self.folder, "*_ckpt.pth")

    def write_start(self, payload: Mapping[str, Any]) -> None:
        """Write the model before the first step as the best so far.

        Raises:
            CheckpointError: it cannot be written: nothing is lost yet.
        """
        save_checkpoint(self.folder / BEST, payload)

    def write(
        self,
        done: int,
        payload: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        is_best: bool,
        history: bool,
        last: bool,
    ) -> bool:
        """Write what an epoch leaves; whether a new best file is there.

        The latest checkpoint comes last: where the writing is cut off, a resumed run repeats the
        epoch and so writes the others again.

        Args:
            done: epochs done.
            payload: the checkpoint.
            state: what the latest checkpoint holds beside it, to resume from.
            is_best: write it as the best one, too.
            history: keep a copy under the epoch's number.
            last: whether no epoch follows.

        Raises:
            CheckpointError: it cannot be written, and the run should end.
        """
        self.finish_position()
        names = [BEST] * is_best + [f"epoch_{done}_ckpt.pth"] * history
        files = {**dict.fromkeys(names, payload), LATEST: {**payload, "train": dict(state)}}
        name = ""
        try:
            for name, content in files.items():
                save_checkpoint(self.folder / name, content)
        except CheckpointError as error:
            self._failures += 1
            if last or self._failures == MAX_FAILURES:
                raise CheckpointError(
                    f"epoch {done} could not be saved: {error}; {self.resume_hint()}"
                ) from error
            logger.warning(f"epoch {done} is not saved, training continues: {error}")
            return is_best and name != BEST
        self._failures = 0
        self.saved, self.position = done, None
        return is_best

    def write_position(
        self, done: int, position: Position, payload: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Begin to write the latest checkpoint inside an epoch, beside the training.

        Nothing given needs to be kept as it is: what is written is copied first.

        Args:
            done: epochs done.
            position: in the epoch after them.
            payload: the checkpoint.
            state: what it holds beside it, to resume from.
        """
        self.finish_position()
        content = snapshot({**payload, "train": dict(state)})
        writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        future = writer.submit(save_checkpoint, self.folder / LATEST, content)
        writer.shutdown(wait=False)  # its thread ends with the file
        self._pending = future, done, position

    def finish_position(self) -> None:
        """Wait for what `write_position` began; a failure of it is a warning."""
        if self._pending is None:
            return
        (future, done, position), self._pending = self._pending, None
        try:
            future.result()
        except CheckpointError as error:
            logger.warning(
                f"the position in epoch {done + 1} is not saved, training continues: {error}"
            )
        else:
            self.saved, self.position = done, position

    def resume_hint(self) -> str:
        """Where a resumed run would start."""
        if self.position is not None:
            return (
                f"{self._goes_on} continues in epoch {self.saved + 1} after iteration "
                f"{self.position.iteration} of {self.position.iterations}"
            )
        if self.saved:
            return f"{self._goes_on} continues from epoch {self.saved + 1}"
        return "there is no checkpoint of this run to resume from yet"
