"""The report's tables and headline figures as texts, with the values that they are sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from yolox.report.charts import draw_class
from yolox.report.data import ClassRow, LayerBar, ModelRow, Report
from yolox.report.formats import ap, change, count, file_size, milliseconds, share, speed_up

__all__ = [
    "Answer",
    "Cell",
    "Table",
    "Tile",
    "answers",
    "class_table",
    "layer_table",
    "model_table",
]

ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: its text, what it is sorted by, a remark below it, whether that is good or bad news.

    Attributes:
        tone: ``better``, ``worse`` or empty.
        chart: markup in place of the text, or none.
    """

    text: str
    value: float | str | None = None
    note: str = ""
    tone: str = ""
    chart: Markup | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows; the first cell of a row is its header. A row may be marked by its role."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A figure of the model after by that of the one before: how much, of what, the two values."""

    figure: str
    name: str
    note: str
    tone: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a reader asks first, the figures that answer it, or why there are none."""

    question: str
    tiles: tuple[Tile, ...]
    absent: str = ""


_Column = tuple[str, Callable[[ModelRow], float | None], Callable[[float, float | None], Cell]]


def model_table(report: Report) -> Table:
    """All models, figures relative to the one before; columns that nobody has are left out."""
    columns = [column for column in _columns(report) if _known(report.models, column)]
    rows = []
    for row in report.models:
        role = "" if row.role == row.label.lower() else row.role
        cells = [Cell(text=row.label, value=row.label.lower(), note=role)]
        for _, get, show in columns:
            value, whole = get(row), get(report.before)
            alone = row.role == "before"
            cells.append(
                Cell(text=ABSENT) if value is None else show(value, None if alone else whole)
            )
        rows.append(tuple(cells))
    return Table(
        columns=("model", *(title for title, _, _ in columns)),
        rows=tuple(rows),
        roles=tuple(row.role for row in report.models),
    )


def answers(report: Report) -> list[Answer]:
    """How much smaller, how much faster, at what cost; empty where there is nothing to compare."""
    if report.after is None:
        return []
    sizes, times, accuracies = _sizes(), _times(report), _accuracies()
    untimed = "give the report the JSON file that yolox bench writes"
    if report.settings:
        untimed = f"the times are not of {report.before.label} and {report.after.label}"
    return [
        Answer(question="How much smaller?", tiles=_tiles(report, sizes, "of the {}")),
        Answer(
            question="How much faster?",
            tiles=_tiles(report, times, "{}"),
            absent=f"Not measured: {untimed}.",
        ),
        Answer(
            question="What did it cost?",
            tiles=_tiles(report, accuracies, "{}"),
            absent="Not measured: without data there is no AP.",
        ),
    ]


def _tiles(report: Report, columns: Sequence[_Column], name: str) -> tuple[Tile, ...]:
    assert report.after is not None
    result = []
    for title, get, show in columns:
        before, after = get(report.before), get(report.after)
        if before is not None and after is not None:
            cell, was = show(after, before), show(before, None).text
            note = f"{cell.text}, was {was}"
            result.append(
                Tile(figure=cell.note, name=name.format(title), note=note, tone=cell.tone)
            )
    return tuple(result)


def class_table(classes: Sequence[ClassRow], *, compared: bool) -> Table:
    """AP by class; with two models also the change."""
    columns = ["class", "objects", "AP50-95 before" if compared else "AP50-95"]
    columns += ["after", "change", "0 to 1"] if compared else ["0 to 1"]
    rows = []
    for row in classes:
        cells = [
            Cell(text=row.name, value=row.name.lower()),
            Cell(text=f"{row.objects:,}", value=row.objects),
            _ap_cell(row.before, None),
        ]
        if compared:
            cells += [_ap_cell(row.after, None), _change_cell(row)]
        cells.append(Cell(text="", value=row.after, chart=Markup(draw_class(row))))  # noqa: S704
        rows.append(tuple(cells))
    return Table(columns=tuple(columns), rows=tuple(rows))


def layer_table(layers: Sequence[LayerBar]) -> Table:
    """Channels of each convolution; sorted by the first column it is in network order."""
    rows = [
        (
            Cell(text=layer.name, value=number),
            Cell(text=f"{layer.before:,}", value=layer.before),
            Cell(text=f"{layer.after:,}", value=layer.after),
            Cell(text=share(layer.after, layer.before), value=layer.after / layer.before),
        )
        for number, layer in enumerate(layers)
    ]
    return Table(columns=("convolution", "before", "after", "kept"), rows=tuple(rows))


def _columns(report: Report) -> list[_Column]:
    return [*_sizes(), *_times(report), *_accuracies()]


def _sizes() -> list[_Column]:
    return [
        ("MACs", lambda row: row.macs, _size_cell(count)),
        ("parameters", lambda row: row.params, _size_cell(count)),
        ("file", lambda row: row.file_bytes, _size_cell(lambda value: file_size(int(value)))),
    ]


def _times(report: Report) -> list[_Column]:
    def latency(setting: str) -> Callable[[ModelRow], float | None]:
        return lambda row: row.ms(setting)

    return [(setting, latency(setting), _time_cell) for setting in report.settings]


def _accuracies() -> list[_Column]:
    return [
        ("AP50-95", lambda row: row.ap50_95, _ap_cell),
        ("AP50", lambda row: row.ap50, _ap_cell),
    ]


def _known(models: Sequence[ModelRow], column: _Column) -> bool:
    return any(column[1](row) is not None for row in models)


def _size_cell(show: Callable[[float], str]) -> Callable[[float, float | None], Cell]:
    def cell(value: float, whole: float | None) -> Cell:
        note = f"{share(value, whole)}" if whole else ""
        tone = "worse" if whole and value > whole else ""
        return Cell(text=show(value), value=value, note=note, tone=tone)

    return cell


def _time_cell(value: float, before: float | None) -> Cell:
    note = speed_up(before, value) if before is not None else ""
    tone = "" if before is None or before == value else "better" if value < before else "worse"
    return Cell(text=milliseconds(value), value=value, note=note, tone=tone)


def _ap_cell(value: float | None, before: float | None) -> Cell:
    if value is None:
        return Cell(text=ABSENT)
    note = change(before, value) if before is not None else ""
    return Cell(text=ap(value), value=value, note=note, tone=_tone(note))


def _change_cell(row: ClassRow) -> Cell:
    if row.before is None or row.after is None:
        return Cell(text=ABSENT)
    text = change(row.before, row.after)
    return Cell(text=text, value=row.after - row.before, tone=_tone(text))


def _tone(text: str) -> str:
    """Of a change of AP as it is printed."""
    return {"+": "better", "−": "worse"}.get(text[:1], "")
