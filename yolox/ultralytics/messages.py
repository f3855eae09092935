"""What Ultralytics says of a fault, as part of a sentence of ours."""

from __future__ import annotations

import re

from yolox.utils.printable import printable

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_MOST = 300  # letters


def cause_of(error: Exception) -> str:
    """An error's message on one line, without colours and emoji, cut off where it is very long."""
    text = " ".join(_COLOURS.sub("", str(error)).split()).encode("ascii", "ignore").decode()
    return printable(text.removeprefix("ERROR").strip()[:_MOST])
