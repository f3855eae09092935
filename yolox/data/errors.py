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
    """Objects are of classes that are not in the list.

    Args:
        names: these classes.
        what, advice, rest: sentences of the message.
    """

    def __init__(self, names: Sequence[str], what: str, advice: str, rest: str = "") -> None:
        super().__init__(f"{what}. {advice}{rest}")
        self.names = tuple(names)
        self._what, self._rest = what, rest

    def with_advice(self, advice: str) -> UnknownClassesError:
        """The same with another word on what to do."""
        return UnknownClassesError(self.names, self._what, advice, self._rest)


def bullets(items: Sequence[str], limit: int = MAX_LISTED) -> str:
    """One indented line per item: at most ``limit`` of them, then how many more there are."""
    lines = [f"\n  - {item}" for item in items[:limit]]
    if len(items) > limit:
        lines.append(f"\n  ... and {len(items) - limit} more ({len(items)} in all)")
    return "".join(lines)
