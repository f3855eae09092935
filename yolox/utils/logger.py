"""Logging of a run: loguru to the terminal, above the progress bar when one runs, and to a file."""

from __future__ import annotations

import sys
from pathlib import Path

from loguru import logger

from yolox.utils.errors import UserError

TERMINAL_FORMAT = "<green>{time:HH:mm:ss}</green> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


def _to_stderr(message: str) -> None:
    # Looked up at each message: a progress bar puts its own stream there while it runs.
    sys.stderr.write(message)


def setup_logger(log_file: Path | None = None, *, quiet: bool = False) -> None:
    """Log to standard error, and to a file too when one is named.

    Args:
        log_file: appended to; its folder is made if need be.
        quiet: only warnings and errors, as on every rank but the first.
    """
    logger.remove()
    logger.add(
        _to_stderr,
        format=TERMINAL_FORMAT,
        level="WARNING" if quiet else "INFO",
        colorize=sys.stderr.isatty(),
    )
    if log_file is not None and not quiet:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write into {log_file.parent} ({error.strerror}): choose another output_dir"
            ) from error
        logger.add(log_file, format=FILE_FORMAT, level="INFO", colorize=False)
