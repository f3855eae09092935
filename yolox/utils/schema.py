"""What a file may say: small checks, put together to the shape of a document.

A check takes a value and the name of its place, and yields what is wrong with it, a phrase each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from yolox.utils.errors import UserError

Check = Callable[[Any, str], Iterator[str]]

_MAX_SHOWN = 5  # problems in a message
_VALUES, _DEPTH = 1_000_000, 20  # of a plain value


def require(value: Any, check: Check, where: str, error: type[UserError] = UserError) -> None:
    """Raise ``error`` with the first few things that are wrong with a value.

    Args:
        value: as it was read.
        check: yields what is wrong, in words.
        where: the file, and what of it the value is, for the message.
        error: the kind to raise.
    """
    problems = list(itertools.islice(check(value, ""), _MAX_SHOWN + 1))
    if problems:
        more = ["and more"] if len(problems) > _MAX_SHOWN else []
        raise error(f"{where}: " + "; ".join([*problems[:_MAX_SHOWN], *more]))


def integer(low: int, high: int) -> Check:
    """An integer in ``[low, high]``; True and False are none."""

    def check(value: Any, where: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            yield f"{_at(where)}expected an integer from {low} to {high}, got {shown(value)}"

    return check


def number(low: float = -math.inf, high: float = math.inf, *, above: float = -math.inf) -> Check:
    """A finite number in ``[low, high]``, and greater than ``above``."""

    def check(value: Any, where: str) -> Iterator[str]:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(_as_float(value)):
            yield f"{_at(where)}expected a number, got {shown(value)}"
        elif not (low <= value <= high and value > above):
            least = f"above {above:g}" if above > -math.inf else f"from {low:g}"
            most = f" to {high:g}" if high < math.inf else ""
            yield f"{_at(where)}expected a number {least}{most}, got {shown(value)}"

    return check


def text(most: int = 100_000) -> Check:
    """A string of at most so many characters."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{_at(where)}expected a text, got {shown(value)}"
        elif len(value) > most:
            yield f"{_at(where)}expected at most {most} characters, got {len(value)}"

    return check


def boolean(value: Any, where: str) -> Iterator[str]:
    """True or False."""
    if not isinstance(value, bool):
        yield f"{_at(where)}expected True or False, got {shown(value)}"


def one_of(options: Sequence[str]) -> Check:
    """One of some words."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str) or value not in options:
            yield f"{_at(where)}expected one of {', '.join(options)}, got {shown(value)}"

    return check


def maybe(of: Check) -> Check:
    """None, or what the other check takes."""

    def check(value: Any, where: str) -> Iterator[str]:
        if value is not None:
            yield from of(value, where)

    return check


def listing(of: Check, length: int | None = None) -> Check:
    """A list or tuple, of a length if one is given."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, (list, tuple)):
            yield f"{_at(where)}expected a list, got {shown(value)}"
        elif length is not None and len(value) != length:
            yield f"{_at(where)}expected a list of {length}, got {len(value)} values"
        else:
            for index, item in enumerate(value):
                yield from of(item, f"{where}[{index}]")

    return check


def mapping(of: Check) -> Check:
    """Names, each with a value."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{_at(where)}expected names with values, got {shown(value)}"
            return
        for key, item in value.items():
            if isinstance(key, str):
                yield from of(item, _join(where, key))
            else:
                yield f"{_at(where)}expected a text for a name, got {shown(key)}"

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Names that must and may be there; others, of a newer program, are let be."""

    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"{_at(where)}expected names with values, got {shown(value)}"
            return
        for key, of in {**required, **(optional or {})}.items():
            place = _join(where, key)
            if key in value:
                yield from of(value[key], place)
            elif key in required:
                yield f"{place} is missing"

    return check


def plain(value: Any, where: str) -> Iterator[str]:
    """Text, numbers, True, False, None, and lists and names of them, within reason.

    What refers to itself, or to the same part many times over, is more than that.
    """
    count, todo = 0, [(value, where, 0)]
    while todo:
        item, place, depth = todo.pop()
        count += 1
        if count + len(todo) > _VALUES or depth > _DEPTH:
            yield f"{_at(where)}expected at most {_VALUES} values, {_DEPTH} levels deep"
            return
        if isinstance(item, Mapping):
            for key in item:
                if not isinstance(key, (str, int)):
                    yield f"{_at(place)}expected a text for a name, got {shown(key)}"
            todo += [(part, _join(place, key), depth + 1) for key, part in item.items()]
        elif isinstance(item, (list, tuple)):
            todo += [(part, place, depth + 1) for part in item]
        elif not (item is None or isinstance(item, (str, bool, float, int))):
            yield f"{_at(place)}expected text, numbers, lists or names of them, got {shown(item)}"
        elif isinstance(item, int) and abs(item) >= 1 << 64:
            yield f"{_at(place)}expected a number of 64 bits, got {shown(item)}"


def shown(value: Any) -> str:
    """A value in a few words, whatever it is and however large."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}…"
    if isinstance(value, (list, tuple, Mapping)):
        kind = "names with values" if isinstance(value, Mapping) else "a list"
        return f"{kind}, {len(value)} long"
    return f"a {type(value).__name__}"


def _join(where: str, key: Any) -> str:
    name = key if isinstance(key, str) and len(key) <= 60 else shown(key)
    return f"{where}.{name}" if where else name


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of many digits
        return math.inf
