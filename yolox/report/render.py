"""From a report's values to the one HTML file that holds all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from loguru import logger
from markupsafe import Markup

from yolox.report.charts import Point, draw_curve, draw_scales, draw_tradeoff
from yolox.report.data import Curve, Fact, ModelRow, Picture, Report
from yolox.report.formats import ap, file_size
from yolox.report.network import draw_network
from yolox.report.svg import element, picture
from yolox.report.tables import answers, class_table, layer_table, model_table
from yolox.report.verdict import judge
from yolox.utils.files import replacing
from yolox.utils.printable import printable

__all__ = ["render", "save_report"]

MAX_BYTES = 2_000_000  # of the file, so that it can be sent by mail
MAX_CURVES = 12  # diagrams of precision and recall; of more classes those that changed most


def render(report: Report) -> str:
    """The page; needs nothing from outside, and asks for nothing."""
    environment = Environment(
        loader=PackageLoader("yolox.report", "page"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compared = report.after is not None
    curves, tradeoffs = chosen_curves(report.curves), _tradeoffs(report)
    content: dict[str, Any] = {
        "report": report,
        "verdict": judge(report),
        "answers": answers(report),
        "header": _header(report),
        "resumable": [row for row in report.models if row.training_bytes],
        "file_size": file_size,
        "ap": ap,
        "marks": _marks,
        "models": model_table(report),
        "tradeoffs": tradeoffs,
        "joined": any('class="front"' in chart for chart in tradeoffs),
        "classes": class_table(report.classes, compared=compared),
        "curves": [_drawn(draw_curve(curve)) for curve in curves],
        "left_out": len(report.curves) - len(curves),
        "network": [
            {"name": part.name, "kept": part.kept, "columns": part.columns, "svg": _drawn(part.svg)}
            for part in (draw_network(report.layers) if report.layers else [])
        ],
        "layer_table": layer_table(report.layers),
        "scales": _drawn(draw_scales(report.scales)) if report.scales else None,
    }
    return environment.get_template("report.html.jinja").render(content)


def save_report(report: Report, path: Path) -> None:
    """Write the page; what was there before stays until all of it is there.

    The file has at most 2 MB: images are left out, those that differ least first, until it fits. A
    page that is larger without any is written as it is, with a warning.

    Raises:
        UserError: it cannot be written.
    """
    page = _fitting(report)
    with replacing(path) as temporary:
        # File names of another encoding hold what UTF-8 cannot.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def _fitting(report: Report) -> str:
    """The page with as many of the images as fit."""
    page, pairs = render(report), report.pairs
    while (size := len(page.encode(errors="replace"))) > MAX_BYTES and pairs:
        # All that go at once, so that a page of many is not rendered as often.
        while pairs and size > MAX_BYTES:
            size -= sum(len(picture.uri) for picture in pairs[-1].pictures)
            pairs = pairs[:-1]
        page = render(dataclasses.replace(report, pairs=pairs))
    if len(pairs) < len(report.pairs):
        logger.info(
            f"{len(pairs)} of {len(report.pairs)} images are shown, so that the page has at most "
            f"{file_size(MAX_BYTES)}"
        )
    if size > MAX_BYTES:
        logger.warning(f"the page has {file_size(size)} without any image: compare fewer models")
    return page


def chosen_curves(curves: Sequence[Curve]) -> list[Curve]:
    """The first, which is the mean, and of many others those that changed most, in their order."""
    if len(curves) <= MAX_CURVES:
        return list(curves)
    changes = {i: _change(curve) for i, curve in enumerate(curves) if i}
    chosen = sorted(sorted(changes, key=lambda i: -changes[i])[: MAX_CURVES - 1])
    return [curves[0], *(curves[i] for i in chosen)]


def _change(curve: Curve) -> float:
    before = sum(curve.before) / len(curve.before)
    return abs(sum(curve.after) / len(curve.after) - before) if curve.after else 0.0


def _tradeoffs(report: Report) -> list[Markup]:
    """AP against MACs and against each latency that was measured, of two or more models."""
    most = max((row.macs or 0 for row in report.models), default=0)
    unit, size = ("G", 1e9) if most >= 1e9 else ("M", 1e6)
    kinds: list[tuple[str, str, Callable[[ModelRow], float | None]]] = [
        ("MACs", unit, lambda row: None if row.macs is None else row.macs / size)
    ]
    for setting in report.settings:
        kinds.append((f"latency, {setting}", "ms", partial(ModelRow.ms, setting=setting)))
    drawn = []
    for cost, unit, cost_of in kinds:
        points = [
            Point(label=row.label, role=row.role, cost=value, ap=row.ap50_95)
            for row in report.models
            if row.ap50_95 is not None and (value := cost_of(row)) is not None
        ]
        if len(points) > 1:
            drawn.append(_drawn(draw_tradeoff(points, cost=cost, unit=unit)))
    return drawn


def _header(report: Report) -> list[Fact]:
    """What the figures are of."""
    facts = [("data", report.dataset), ("input", report.input_size)]
    facts += [(row.label, row.training) for row in (report.before, report.after) if row]
    return [Fact(name=name, value=value) for name, value in facts if value]


def _marks(shown: Picture, other: str) -> Markup | None:
    """Frames around the boxes of a picture that the other one has not."""
    if not shown.marks:
        return None
    frames = []
    for mark in shown.marks:
        x1, y1, x2, y2 = mark.box
        # Inside the box, whose name stands above it; around one that is too small for that.
        inset = 2.5 if min(x2 - x1, y2 - y1) > 16 else -3
        # A model may put boxes beyond its image.
        x1, y1 = max(x1 + inset, 2), max(y1 + inset, 2)
        x2, y2 = min(x2 - inset, shown.width - 2), min(y2 - inset, shown.height - 2)
        width, height = max(x2 - x1, 0), max(y2 - y1, 0)
        for layer in ("halo", "dash"):
            frames.append(element("rect", class_=layer, x=x1, y=y1, width=width, height=height))
    names = "; ".join(mark.name for mark in shown.marks)
    return _drawn(
        picture(shown.width, shown.height, frames, title=f"Not found in {other}", description=names)
    )


def _shown(value: Any) -> Any:
    """A value of the page; names from files act on nothing in it."""
    is_name = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n") if is_name else value


def _drawn(svg: str) -> Markup:
    """A diagram, whose texts are escaped where it is made."""
    return Markup(svg)  # noqa: S704
