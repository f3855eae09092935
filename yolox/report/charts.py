"""The report's diagrams: plain values in, SVG text out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from yolox.report.data import ClassRow, Curve, ScaleHistograms
from yolox.report.formats import THIN_SPACE
from yolox.report.svg import (
    CHARACTER_WIDTH,
    Frame,
    element,
    picture,
    rising_ticks,
    short,
    text,
    tooltip,
)

__all__ = [
    "Point",
    "draw_class",
    "draw_curve",
    "draw_scales",
    "draw_tradeoff",
    "pareto_front",
]

_UNIT = [(value, f"{value:g}") for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
_Box = tuple[float, float, float, float]  # left, top, right, bottom

_LABEL_SIZE = 12.5  # of a point's name, in the picture's units


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model in a diagram of accuracy against cost; ``role`` as in `ModelRow`."""

    label: str
    role: str
    cost: float
    ap: float


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats in cost and AP, cheapest first.

    Of points equal in both the first counts.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i].cost, -points[i].ap, i))
    front: list[int] = []
    for i in order:
        if not front or points[i].ap > points[front[-1]].ap:
            front.append(i)
    return front


def draw_tradeoff(points: Sequence[Point], *, cost: str, unit: str = "") -> str:
    """AP50-95 over a cost, each model named, those that none beats joined by a line.

    Args:
        points: at least one.
        cost: what the x axis shows.
        unit: after its numbers.
    """
    low, high = min(p.ap for p in points), max(p.ap for p in points)
    margin = max(0.18 * (high - low), 0.01)
    frame = Frame(
        left=50,
        top=30,
        right=448,
        bottom=290,
        x=(0.0, 1.12 * max(p.cost for p in points) or 1.0),
        y=(max(low - margin, 0.0), min(high + margin, 1.0)),
    )
    y_ticks = rising_ticks(*frame.y)
    places = max([2, *(len(f"{tick:g}".partition(".")[2]) for tick in y_ticks)])
    parts = frame.axes(
        [(tick, _tick(tick)) for tick in rising_ticks(*frame.x)],
        [(tick, f"{tick:.{places}f}") for tick in y_ticks],
        cost + (f", {unit}" if unit else ""),
        "AP50-95",
    )
    corners = _steps([points[i] for i in pareto_front(points)])
    if len(corners) > 1:
        parts.append(frame.line(corners, "front"))
    for point in points:
        marker = element(
            "circle",
            tooltip(f"{point.label}: {_tick(point.cost)} {unit}, AP50-95 {point.ap:.3f}"),
            class_=f"point {point.role}".strip(),
            cx=frame.at_x(point.cost),
            cy=frame.at_y(point.ap),
            r=6 if point.role else 4.5,
        )
        parts.append(marker)
    parts += _names(frame, points, corners)
    described = "; ".join(f"{p.label} {_tick(p.cost)} {unit}, {p.ap:.3f}" for p in points)
    return picture(460, 336, parts, title=f"AP50-95 against {cost}", description=described)


def _steps(front: Sequence[Point]) -> list[tuple[float, float]]:
    """(cost, AP) of the line's corners: a budget between two models buys the cheaper one."""
    corners = [(front[0].cost, front[0].ap)]
    for last, point in itertools.pairwise(front):
        corners += [(point.cost, last.ap), (point.cost, point.ap)]
    return corners


def _names(frame: Frame, points: Sequence[Point], line: Sequence[tuple[float, float]]) -> list[str]:
    """The points' labels, each where it meets the least of the others and of the line."""
    places = [(frame.at_x(p.cost), frame.at_y(p.ap)) for p in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    for (x1, y1), (x2, y2) in itertools.pairwise(
        (frame.at_x(cost), frame.at_y(ap)) for cost, ap in line
    ):
        taken.append((x1 - 1, min(y1, y2) - 1, x2 + 1, max(y1, y2) + 1))
    parts = []
    for point, (x, y) in zip(points, places, strict=True):
        name = short(point.label, 30)
        width = len(name) * CHARACTER_WIDTH * _LABEL_SIZE
        boxes = {
            (anchor, x + dx, y + dy): _box(x + dx - part * width, y + dy, width)
            for anchor, dx, part in (("start", 11, 0.0), ("end", -11, 1.0), ("middle", 0, 0.5))
            for dy in (4, -13, 22)
        }
        best = min(boxes, key=lambda at: _conflict(boxes[at], taken, frame))
        taken.append(boxes[best])
        anchor, left, base = best
        parts.append(
            text(name, left, base, class_=f"name {point.role}".strip(), text_anchor=anchor)
        )
    return parts


def _box(left: float, base: float, width: float) -> _Box:
    return left - 2, base - _LABEL_SIZE, left + width + 2, base + 4


def _conflict(label: _Box, taken: Sequence[_Box], frame: Frame) -> float:
    """Area that a label shares with others, and what it has outside the frame, which is worse."""
    x1, y1, x2, y2 = label
    shared = sum(
        max(min(x2, b[2]) - max(x1, b[0]), 0) * max(min(y2, b[3]) - max(y1, b[1]), 0) for b in taken
    )
    outside = max(frame.left - x1, 0) + max(x2 - frame.right - 10, 0)
    outside += max(frame.top - y1, 0) + max(y2 - frame.bottom, 0)
    return shared + 50 * outside


def draw_curve(curve: Curve) -> str:
    """Precision over recall, before and after."""
    frame = Frame(left=42, top=42, right=318, bottom=232, x=(0.0, 1.0), y=(0.0, 1.0))
    parts = [text(short(curve.name, 30), 42, 14, class_="name")]
    parts += frame.axes(_UNIT, _UNIT, "recall", "precision")
    said = []
    for label, values in (("before", curve.before), ("after", curve.after)):
        if values:
            steps = len(values) - 1
            line = [(number / steps, value) for number, value in enumerate(values)]
            parts.append(frame.line(line, f"line {label}"))
            said.append(f"{label} {sum(values) / len(values):.3f}")
    areas = ", ".join(said)
    parts.append(text(areas, 318, 32, class_="tick", text_anchor="end"))
    return picture(
        330,
        276,
        parts,
        title=f"Precision over recall, {curve.name}",
        description=f"mean precision at IoU 0.5: {areas}",
    )


def draw_class(row: ClassRow) -> str:
    """A class's AP50-95 before and after on a scale from 0 to 1, for a cell of a table."""
    left, right, middle = 6.0, 114.0, 9.0

    def at(value: float) -> float:
        return left + value * (right - left)

    parts = [element("line", class_="track", x1=left, x2=right, y1=middle, y2=middle)]
    if row.before is not None and row.after is not None:
        x1, x2 = at(row.before), at(row.after)
        parts.append(element("line", class_="way", x1=x1, x2=x2, y1=middle, y2=middle))
    said = []
    for role, value in (("before", row.before), ("after", row.after)):
        if value is not None:
            radius = 5 if role == "after" else 4
            parts.append(
                element("circle", class_=f"point {role}", cx=at(value), cy=middle, r=radius)
            )
            said.append(f"{role} {value:.3f}")
    return picture(120, 18, parts, title=row.name, description=", ".join(said) or "no objects")


def draw_scales(scales: ScaleHistograms) -> str:
    """How many channels have which |γ|, before and after, on a logarithmic count."""
    most = max(max(model.counts) for model in scales.models)
    decades = math.floor(math.log10(max(most, 10)))
    frame = Frame(
        left=50,
        top=30,
        right=448,
        bottom=270,
        x=(scales.edges[0], scales.edges[-1]),
        y=(0.7, 1.5 * max(most, 10)),
        log_y=True,
    )
    parts = frame.axes(
        [(tick, _tick(tick)) for tick in rising_ticks(*frame.x)],
        [(10.0**n, f"{10**n:,}") for n in range(decades + 1)],
        "|γ|",
        "channels",
    )
    said = []
    for role, model in zip(("before", "after"), scales.models, strict=False):
        xs = [edge for edge in scales.edges for _ in range(2)]
        ys = [frame.y[0], *(count for count in model.counts for _ in range(2)), frame.y[0]]
        outline = list(zip(xs, ys, strict=True))
        parts.append(frame.line(outline, f"line area {role}"))
        said.append(
            f"{model.label}: {sum(model.counts):,}{THIN_SPACE}channels, median {model.median:.3g}"
        )
    return picture(460, 316, parts, title="Scales of batch norms", description="; ".join(said))


def _tick(value: float) -> str:
    return f"{value:.4g}"
