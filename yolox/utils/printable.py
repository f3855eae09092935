"""Text from files as a terminal, a log, a page and a picture can show it."""

from __future__ import annotations

import unicodedata

# Controls, halves of characters, ends of lines and paragraphs; and those that say how others are
# drawn, of which the joiners are needed to spell words (Persian, Hindi) and many an emoji.
_HIDDEN_CATEGORIES = ("Cc", "Cs", "Cf", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def printable(text: str, keep: str = "") -> str:
    r"""Text with whatever acts instead of being seen written as an escape, such as ``\x1b``.

    Names of classes and files may hold anything: commands to the terminal, a line that looks like
    another message, characters that turn the reading direction around.

    Args:
        text: as it came from a person or a file.
        keep: characters that stay as they are, such as the line feeds of a message.
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii") if _is_hidden(char, keep) else char
        for char in text
    )


def threads_of(number: int) -> str:
    """How many threads, in words: ``1 thread``, ``2 threads``."""
    return f"{number} thread{'' if number == 1 else 's'}"


def _is_hidden(char: str, keep: str) -> bool:
    return (
        char not in keep
        and char not in _JOINERS
        and unicodedata.category(char) in _HIDDEN_CATEGORIES
    )
