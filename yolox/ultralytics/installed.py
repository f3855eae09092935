"""Whether Ultralytics is here, in a version that this package goes with, reading safely."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from loguru import logger

from yolox.utils.cache_folder import cache_folder
from yolox.utils.errors import UserError
from yolox.utils.extras import import_extra

LEAST, BELOW = (8, 4, 190), (8, 5)
INSTALL = 'pip install "ultralytics>=8.4.190,<8.5"'
NOTICE = (
    "Ultralytics is licensed under AGPL-3.0, and this program under Apache-2.0: whoever passes "
    "both on together, or lets others use them over a network, is bound by the AGPL "
    "(docs/ultralytics.md)"
)


def require_ultralytics(*, safely: bool = False) -> str:
    """Its version, where it can be used.

    Args:
        safely: have it read every file without running code of it, in this process and those that
            it starts, and install nothing on its own; to be asked for before it is imported.

    Raises:
        UserError: it is not installed, broken, or of another version; with the line that
            installs it.
    """
    if safely:
        os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        found = version("ultralytics")
    except PackageNotFoundError as error:
        raise UserError(f"this needs Ultralytics, not installed here: {INSTALL}") from error
    if not LEAST <= _numbers(found) < BELOW:
        raise UserError(
            f"this needs Ultralytics from 8.4.190 to below 8.5, and {found} is installed: {INSTALL}"
        )
    try:
        version("torchvision")
    except PackageNotFoundError as error:
        raise UserError(
            "Ultralytics needs torchvision, not installed here: pip install torchvision"
        ) from error
    module = import_extra("ultralytics", "this")
    if safely and not module.utils.SAFE_LOAD:
        raise UserError(
            "Ultralytics was imported before and reads files unsafely: set the environment "
            "variable ULTRALYTICS_SAFE_LOAD=true"
        )
    return found


def begin_safely() -> None:
    """`require_ultralytics` for a command: safely, and its version is told.

    So is its licence, at the first time that this user runs such a command here: a file in the
    cache folder remembers it. Where none can be written, it is told each time.

    Raises:
        UserError: see `require_ultralytics`.
    """
    found = require_ultralytics(safely=True)
    mark = cache_folder() / "ultralytics_licence_told"
    is_first = not mark.exists()
    logger.info(f"Ultralytics {found}{f': {NOTICE}' if is_first else ''}")
    if is_first:
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
