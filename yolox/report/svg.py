"""Small diagrams as SVG text: escaped, valid XML, coloured by the page's own style sheet.

Nothing here names a colour: elements carry classes, so that a dark page and a printed one each
have their own. Every diagram has a title and a description for those who hear it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from yolox.utils.printable import printable

__all__ = ["Frame", "element", "picture", "rising_ticks", "short", "text"]

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

CHARACTER_WIDTH = 0.6  # of the font's size: mean width of a letter in a sans serif face


def element(name: str, content: str = "", **attributes: object) -> str:
    """An element; ``class_`` and ``stroke_width`` are the attributes class and stroke-width.

    Args:
        name: of the tag.
        content: markup, inserted as it is.
        attributes: escaped; numbers are rounded to two places.
    """
    pairs = "".join(
        f" {key.strip('_').replace('_', '-')}={quoteattr(_value(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{pairs}>{content}</{name}>" if content else f"<{name}{pairs}/>"


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """A text at a point, escaped."""
    return element("text", escape(_printable(content)), x=x, y=y, **attributes)


def tooltip(content: str) -> str:
    """What a pointer that rests on the element shows."""
    return element("title", escape(_printable(content)))


def picture(
    width: float, height: float, content: Sequence[str], *, title: str, description: str
) -> str:
    """The whole diagram, as wide as its place on the page."""
    return element(
        "svg",
        tooltip(title) + element("desc", escape(_printable(description))) + "".join(content),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_label=_printable(f"{title}. {description}"),
    )


def short(name: str, most: int = 22) -> str:
    """A name that fits."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def rising_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values (1, 2 or 5 × 10ⁿ apart) from ``low`` to ``high``, about ``most`` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plotting area, and how values become places in it.

    Attributes:
        left, top, right, bottom: edges in the picture's units, y pointing down.
        x, y: (lowest, highest) value shown.
        log_y: whether the y axis is logarithmic.
    """

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    log_y: bool = False

    def at_x(self, value: float) -> float:
        """Place of a value on the x axis."""
        low, high = self.x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """Place of a value on the y axis; on a logarithmic one the lowest if it is less."""
        low, high = self.y
        if self.log_y:
            value, low, high = (math.log10(max(v, low)) for v in (value, low, high))
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def axes(
        self,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_title: str,
        y_title: str,
    ) -> list[str]:
        """Grid, labels of the ticks, and what the axes show."""
        parts = []
        for value, label in y_ticks:
            y = self.at_y(value)
            parts.append(element("line", class_="grid", x1=self.left, x2=self.right, y1=y, y2=y))
            parts.append(text(label, self.left - 7, y + 4, class_="tick", text_anchor="end"))
        for value, label in x_ticks:
            x = self.at_x(value)
            parts.append(element("line", class_="grid", x1=x, x2=x, y1=self.top, y2=self.bottom))
            parts.append(text(label, x, self.bottom + 17, class_="tick", text_anchor="middle"))
        middle = (self.left + self.right) / 2
        if x_title:
            parts.append(
                text(x_title, middle, self.bottom + 36, class_="axis", text_anchor="middle")
            )
        if y_title:
            parts.append(text(y_title, self.left, self.top - 10, class_="axis"))
        return parts

    def line(self, values: Sequence[tuple[float, float]], class_: str) -> str:
        """A line through (x, y) values."""
        points = " ".join(f"{_value(self.at_x(x))},{_value(self.at_y(y))}" for x, y in values)
        return element("polyline", class_=class_, points=points, fill="none")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 2) + 0.0:g}" if abs(value) < 1e5 else f"{value:.0f}"
    return str(value)


def _printable(content: str) -> str:
    """Text without what acts instead of being seen, and what XML cannot hold."""
    return _NOT_XML.sub(" ", printable(content, keep="\n"))
