"""Figures as texts: three significant digits, a true minus, a narrow space before the unit."""

from __future__ import annotations

import math

from yolox.utils.timing import compared

__all__ = ["THIN_SPACE", "ap", "change", "count", "file_size", "milliseconds", "share", "speed_up"]

THIN_SPACE = "\u202f"  # narrow, and no line breaks there
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def three_digits(value: float) -> str:
    """A positive number with three significant digits, or all of its whole ones."""
    if value <= 0:
        return "0"
    rounded = float(f"{value:.3g}")
    digits = max(2 - math.floor(math.log10(rounded)), 0)
    return f"{rounded:.{digits}f}" if digits else f"{value:,.0f}"


def count(value: float) -> str:
    """A number of parameters or of MACs: 897 k, 1.24 G."""
    for size, letter in _PREFIXES:
        if value >= size:
            return f"{three_digits(value / size)}{THIN_SPACE}{letter}"
    return f"{value:,.0f}"


def file_size(value: int) -> str:
    """Bytes as kB or MB, powers of 1000."""
    size, unit = (1e6, "MB") if value >= 1e6 else (1e3, "kB")
    return f"{three_digits(value / size)}{THIN_SPACE}{unit}"


def milliseconds(value: float) -> str:
    """A time."""
    return f"{three_digits(value)}{THIN_SPACE}ms"


def share(value: float, whole: float) -> str:
    """What part of a whole is left, in per cent; one place where it is less than ten."""
    percent = 100 * value / whole
    return f"{percent:.{0 if percent >= 9.95 else 1}f}{THIN_SPACE}%"


def speed_up(before_ms: float, after_ms: float) -> str:
    """How fast or slow the one is, measured by the other."""
    return compared(before_ms, after_ms).replace(" ", THIN_SPACE, 1)


def ap(value: float) -> str:
    """An average precision."""
    return f"{value:.3f}"


def change(before: float, after: float) -> str:
    """A difference of average precisions, with its sign."""
    difference = round(after, 3) - round(before, 3)
    if abs(difference) < 0.0005:
        return "±0"
    return f"{'+' if difference > 0 else '−'}{abs(difference):.3f}"
