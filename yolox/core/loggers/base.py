"""What a run logger is, and several of them as one that never ends a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor

from yolox.core.signals import Interrupted
from yolox.utils.files import replacing

HISTOGRAM_BINS = 40
RUN_IDS_FILE = "run_loggers.json"  # in a run's folder, once a logger has named the run

Outcome = Literal["finished", "failed", "stopped"]
Pictures = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A run, as its loggers get to know it.

    Attributes:
        folder: of its files.
        fields: its settings by name: numbers, texts, None, and lists of them.
        resumed: whether it goes on with a stopped one, whose `ids` are to be taken up.
    """

    folder: Path
    fields: Mapping[str, Any]
    resumed: bool

    def ids(self, logger_name: str) -> dict[str, Any]:
        """What a logger has kept of the stopped run; empty of a new run."""
        return dict(self._read().get(logger_name, {})) if self.resumed else {}

    def keep_ids(self, logger_name: str, values: Mapping[str, Any]) -> None:
        """Keep plain values for when this run is resumed."""
        content = self._read() | {logger_name: dict(values)}
        with replacing(self.folder / RUN_IDS_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def forget_others(self) -> None:
        """What an earlier run in the same folder kept is not this one's, unless it is resumed."""
        if not self.resumed:
            (self.folder / RUN_IDS_FILE).unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        file = self.folder / RUN_IDS_FILE
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


class RunLogger(Protocol):
    """Keeps what a training run tells of itself. Used in the first process only.

    Attributes:
        name: for the sentence "no more … : training continues without them".
        advice: how a person gets them in spite of what failed; may be empty.
        errors: what its methods raise where they cannot do it.
        num_pictures: evaluation images that it wants to be shown with their detections.
    """

    name: str
    advice: str
    errors: tuple[type[Exception], ...]
    num_pictures: int

    def start(self, run: RunInfo) -> None:
        """Begin, or go on with a stopped run."""

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """A point of several curves, at an iteration of the whole run, from 1."""

    def histogram(self, iteration: int, name: str, values: NDArray[np.float64]) -> None:
        """The distribution of values (n,), finite, at least one."""

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        """Images with detections drawn in, RGB uint8 (H, W, 3), by name."""

    def best_checkpoint(self, file: Path) -> None:
        """The best checkpoint of a finished run, to be kept where a person asked for it."""

    def finish(self, outcome: Outcome) -> None:
        """End, also where `start` failed."""


class RunLoggers:
    """Loggers that are told the same. One that fails is left out from there on, with a warning.

    A context: entering starts them, leaving finishes them.
    """

    def __init__(self, loggers: Iterable[RunLogger], run: RunInfo | None = None) -> None:
        self._live = list(loggers)
        self._run = run

    @property
    def num_pictures(self) -> int:
        """The most evaluation images that one of them wants."""
        return max((each.num_pictures for each in self._live), default=0)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """See `RunLogger.scalars`."""
        self._tell(lambda each: each.scalars(iteration, values))

    def histogram(self, iteration: int, name: str, values: Tensor) -> None:
        """The distribution of finite values, any shape, at least one."""
        numbers = values.detach().double().cpu().numpy().ravel()
        self._tell(lambda each: each.histogram(iteration, name, numbers))

    def pictures(self, iteration: int, pictures: Pictures) -> None:
        """See `RunLogger.pictures`; each gets as many as it wants."""
        names = list(pictures)

        def show(each: RunLogger) -> None:
            if each.num_pictures:
                each.pictures(iteration, {n: pictures[n] for n in names[: each.num_pictures]})

        self._tell(show)

    def best_checkpoint(self, file: Path) -> None:
        """See `RunLogger.best_checkpoint`."""
        self._tell(lambda each: each.best_checkpoint(file))

    def __enter__(self) -> RunLoggers:
        if (run := self._run) is not None and self._live:
            with suppress(OSError):
                run.forget_others()
            self._tell(lambda each: each.start(run))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            outcome: Outcome = "finished"
        else:
            outcome = "stopped" if issubclass(kind, (Interrupted, KeyboardInterrupt)) else "failed"
        self._tell(lambda each: each.finish(outcome))

    def _tell(self, act: Callable[[RunLogger], None]) -> None:
        for each in list(self._live):
            try:
                act(each)
            except each.errors as error:
                self._live.remove(each)
                with suppress(*each.errors):
                    each.finish("failed")
                reason = " ".join(str(error).split()) or type(error).__name__
                advice = f"; {each.advice}" if each.advice else ""
                logger.warning(
                    f"no more {each.name} ({reason}): training continues without them{advice}"
                )
