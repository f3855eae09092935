"""The long lists of a JSON document, element by element: none of them is ever held whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_MAX_ELEMENT = 1 << 26  # characters: one that is longer, or never ends, is not worth the waiting
_SPACE = " \t\n\r"
_AFTER = frozenset(_SPACE + ",]}:")  # a value; else a number goes on, or it is no JSON
scan_once: Callable[[str, int], tuple[Any, int]] = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009


class NotStreamedError(Exception):
    """A document that has to be read whole: another form, another encoding, or no JSON."""


def stream_lists(chunks: Iterable[bytes], wanted: set[str]) -> Iterator[tuple[str, Iterator[Any]]]:
    """The wanted lists of a document that is one object, each with an iterator over its elements.

    An iterator must be used up before the next list is asked for. Values are as `json.loads` makes
    them. Other keys are read over.

    Args:
        chunks: the document's bytes, in UTF-8.
        wanted: keys of the lists.

    Raises:
        NotStreamedError: it has to be read whole, to know it or to say what is wrong with it. What
            was yielded before does not count then.
    """
    text = _Text(chunks)
    text.take("{")
    seen: set[str] = set()
    while text.peek() != "}":
        if seen:
            text.take(",")
        key = text.value()
        if not isinstance(key, str) or key in seen:
            raise NotStreamedError
        seen.add(key)
        text.take(":")
        if key in wanted:
            yield key, text.elements()
        elif text.peek() == "[":
            for _ in text.elements():
                pass
        else:
            text.value()
    text.take("}")
    text.end()


class _Text:
    """A document as far as it is needed."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogatepass").decode
        self._text, self._at = "", 0

    def _more(self) -> bool:
        """Whether another part came, the part read dropped."""
        chunk = next(self._chunks, b"")
        try:
            new = self._decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            raise NotStreamedError from None
        self._text, self._at = self._text[self._at :] + new, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no space, and not passed."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not self._more():
                raise NotStreamedError

    def take(self, character: str) -> None:
        """Pass the next character, which must be this one."""
        if self.peek() != character:
            raise NotStreamedError
        self._at += 1

    def end(self) -> None:
        """Nothing but spaces may follow."""
        while True:
            if self._text[self._at :].strip(_SPACE):
                raise NotStreamedError
            self._at = len(self._text)
            if not self._more():
                return

    def value(self) -> Any:
        """The next value, of any kind.

        Each try begins at its start, so that the next one is made when there is twice as much.
        """
        self.peek()
        while True:
            try:
                value, end = scan_once(self._text, self._at)
            except (StopIteration, ValueError):
                end = len(self._text)
            except RecursionError:
                raise NotStreamedError from None
            if self._text[end : end + 1] in _AFTER:
                self._at = end
                return value
            length = len(self._text) - self._at
            if length > _MAX_ELEMENT or not self._more():
                raise NotStreamedError
            while len(self._text) - self._at < 2 * length and self._more():
                pass

    def elements(self) -> Iterator[Any]:
        """Those of the next value, a list."""
        self.take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._at += 1
                # What follows is whole in most cases: no call and no copy for it.
                at = self._at + (self._text[self._at : self._at + 1] == " ")
                try:
                    value, end = scan_once(self._text, at)
                except (StopIteration, ValueError, RecursionError):
                    end = len(self._text)
                if self._text[end : end + 1] in _AFTER:
                    self._at = end
                else:
                    value = self.value()
                yield value
        self.take("]")
