"""From a report's values to the one HTML file that holds all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from yolox.report.charts import Point, draw_curve, draw_layers, draw_scales, draw_tradeoff
from yolox.report.data import Curve, ModelRow, Report
from yolox.report.tables import class_table, layer_table, model_table, tiles
from yolox.utils.files import replacing
from yolox.utils.printable import printable

__all__ = ["render", "save_report"]

MAX_CURVES = 12  # diagrams of precision and recall; of more classes those that changed most
MAX_TILES = 4  # headline figures side by side


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
    curves = chosen_curves(report.curves)
    content: dict[str, Any] = {
        "report": report,
        "tiles": tiles(report),
        "most_tiles": MAX_TILES,
        "slower": _slower(report),
        "models": model_table(report),
        "tradeoffs": _tradeoffs(report),
        "classes": class_table(report.classes, compared=compared),
        "curves": [_drawn(draw_curve(curve)) for curve in curves],
        "left_out": len(report.curves) - len(curves),
        "layers": _drawn(draw_layers(report.layers)) if report.layers else None,
        "layer_table": layer_table(report.layers),
        "scales": _drawn(draw_scales(report.scales)) if report.scales else None,
    }
    return environment.get_template("report.html.jinja").render(content)


def save_report(report: Report, path: Path) -> None:
    """Write the page; what was there before stays until all of it is there.

    Raises:
        UserError: it cannot be written.
    """
    page = render(report)
    with replacing(path) as temporary:
        # File names of another encoding hold what UTF-8 cannot.
        temporary.write_text(page, encoding="utf-8", errors="replace")


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


def _slower(report: Report) -> list[str]:
    """Settings in which the model after takes longer than the one before."""
    if report.after is None:
        return []
    pairs = {s: (report.before.ms(s), report.after.ms(s)) for s in report.settings}
    return [
        s for s, (old, new) in pairs.items() if old is not None and new is not None and new > old
    ]


def _shown(value: Any) -> Any:
    """A value of the page; names from files act on nothing in it."""
    is_name = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n") if is_name else value


def _drawn(svg: str) -> Markup:
    """A diagram, whose texts are escaped where it is made."""
    return Markup(svg)  # noqa: S704
