"""Logging of a run: loguru to the terminal, above the progress bar when one runs, and to a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loguru import logger

from yolox.utils.errors import UserError
from yolox.utils.printable import printable

if TYPE_CHECKING:
    from loguru import Record

TERMINAL_FORMAT = "<green>{time:HH:mm:ss}</green> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"

_LOOKS_LIKE_A_MESSAGE = re.compile(r"\n(?=\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d)")


def _to_stderr(message: str) -> None:
    # Looked up at each message: a progress bar puts its own stream there while it runs.
    with suppress(OSError):  # nobody may be reading any more; a run goes on
        sys.stderr.write(message)


class _LogFile:
    """A file that takes messages while its disk does."""

    def __init__(self, path: Path, mode: Literal["a", "w"]) -> None:
        self._file = path.open(mode, encoding="utf-8")

    def write(self, message: str) -> None:
        with suppress(OSError):  # a full disk costs lines of the log, not the run
            self._file.write(message)
            self._file.flush()

    def stop(self) -> None:
        """Called by loguru when the file is not logged to any more."""
        with suppress(OSError):
            self._file.close()


def _tame(record: Record) -> None:
    """Show what acts instead of being seen, and let no line look like another message.

    A command has its own `speaker`, which says messages about Python calls in its flags.
    """
    say = record["extra"].get("speaker", str)
    text = printable(say(record["message"]), keep="\n\t")
    record["message"] = _LOOKS_LIKE_A_MESSAGE.sub("\n  ", text)


def setup_logger(
    save_dir: str | Path | None = None,
    distributed_rank: int = 0,
    filename: str = "train_log.txt",
    mode: str = "a",
    earlier: Sequence[str] = (),
) -> None:
    """Log to standard error, and to a file too when a folder is named.

    Args:
        save_dir: folder of the log file, made if need be.
        distributed_rank: of this process; all but the first show errors only, and
            write no file.
        filename: of the log file.
        mode: ``"a"`` appends, ``"o"`` starts the file anew.
        earlier: lines that the file gets first; see `remembering`.

    Raises:
        UserError: the folder cannot be written to.
    """
    logger.remove()
    logger.configure(patcher=_tame)
    quiet = distributed_rank != 0
    logger.add(
        _to_stderr,
        format=TERMINAL_FORMAT,
        level="ERROR" if quiet else "INFO",
        colorize=sys.stderr.isatty(),
    )
    if save_dir is None or quiet:
        return
    file = Path(save_dir) / filename
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sink = _LogFile(file, "w" if mode == "o" else "a")
    except OSError as error:
        raise UserError(
            f"cannot write into {file.parent} ({error.strerror}): choose another output_dir"
        ) from error
    for line in earlier:
        sink.write(line)
    logger.add(sink, format=FILE_FORMAT, level="INFO", colorize=False)


@contextmanager
def remembering() -> Iterator[list[str]]:
    """The lines of a log file that messages logged within the block would make.

    What is said of data and recipe while a run is being built belongs into its log, but the run has
    no folder yet, or another run has that.
    """
    lines: list[str] = []
    handler = logger.add(lines.append, format=FILE_FORMAT, level="INFO", colorize=False)
    try:
        yield lines
    finally:
        with suppress(ValueError):  # the logger was set up anew
            logger.remove(handler)
