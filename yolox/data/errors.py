"""The error for what a person's data can cause, and how it lists what it found."""

from __future__ import annotations

from collections.abc import Sequence

from yolox.utils.errors import UserError

MAX_LISTED = 10


class DataError(UserError):
    """A data set, or one of its files, cannot be used as it is.

    The message says what is wrong, where, what was expected and what to do next. Readers collect
    all problems of one kind before raising, so that a person mends them in one go.
    """


class UnknownClassesError(DataError):
    """Objects are of classes that are not in the list; `names` are these."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


def bullets(items: Sequence[str], limit: int = MAX_LISTED) -> str:
    """One indented line per item: at most ``limit`` of them, then how many more there are."""
    lines = [f"\n  - {item}" for item in items[:limit]]
    if len(items) > limit:
        lines.append(f"\n  ... and {len(items) - limit} more ({len(items)} in all)")
    return "".join(lines)
