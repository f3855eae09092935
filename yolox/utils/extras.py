"""Packages that only some people need, imported when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from yolox.utils.errors import UserError


def import_extra(package: str, purpose: str) -> ModuleType:
    """A package that the project does without, imported now.

    Args:
        package: its name, for Python and for pip.
        purpose: what asks for it, as ``the logger wandb``.

    Raises:
        UserError: it is not installed, or installed and broken; with the line that installs it.
    """
    install = f"pip install {package}"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UserError(f"{purpose} needs {package}, not installed here: {install}") from error
        raise UserError(
            f"{purpose} needs {package}, which is installed but broken ({error}): {install} "
            "--force-reinstall"
        ) from error
    if module.__file__ is None:  # a folder of that name in the current one, as W&B's own
        raise UserError(f"{purpose} needs {package}, not installed here: {install}")
    return module
