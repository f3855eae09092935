"""Numbers and flags as annotation files write them: as numbers, as text, as true and false."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NO = frozenset({"", "0", "false", "no", "n", "none", "null", "unspecified"})
_YES = frozenset({"1", "true", "yes", "y"})
_MAX_EXACT = 2.0**53  # up to here a float holds every whole number


def as_number(value: object) -> float | None:
    """A finite number, also from text such as ``"12.5"``; None for anything else, bool among it."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else None
    if type(value) is not float and type(value) is not int:  # bool is another type
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_whole(value: object) -> int | None:
    """A whole number of 64 bits, also from ``"7"`` or 7.0; None for anything else."""
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    if type(value) is int:
        return value if abs(value) < 2**63 else None
    number = as_number(value)
    if number is None or abs(number) >= _MAX_EXACT or not number.is_integer():
        return None
    return int(number)


def as_flag(value: object) -> bool | None:
    """Yes or no from 0 and 1, true and false, or their text; what is not said is no.

    None for anything else: a 2 or a "maybe" may mean either.
    """
    if value is None or value is False or value is True:
        return bool(value)
    if type(value) is int:
        return bool(value) if 0 <= value <= 1 else None
    if isinstance(value, str):
        text = value.strip().casefold()
        if text in _NO or text in _YES:
            return text in _YES
    number = as_number(value)
    return bool(number) if number in (0.0, 1.0) else None
