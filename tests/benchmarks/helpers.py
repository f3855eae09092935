"""Scripts of the benchmarks as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.runs import REPO


def script(name: str) -> ModuleType:
    """A script of benchmarks/, which may import others of them."""
    sys.path.insert(0, str(REPO / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
