"""The models of a report side by side, for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from yolox.report.data import Report
from yolox.report.tables import model_table
from yolox.utils.printable import printable

__all__ = ["summary_table"]

_LEFT_OUT = "AP50"  # the page has it


def summary_table(report: Report) -> Table:
    """Sizes, the first latency that was measured, and AP50-95; relative to the model before."""
    content = model_table(report)
    others = {*report.settings[1:], _LEFT_OUT}
    shown = [number for number, name in enumerate(content.columns) if name not in others]
    table = Table(title="Before and after")
    for number in shown:
        name = escape(printable(content.columns[number]))
        # A name that is cut in two reads like another one.
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    for cells in content.rows:
        words = []
        for number in shown:
            cell = cells[number]
            relative = cell.note.removesuffix(" as fast")
            note = f" ({relative})" if number and relative else ""
            words.append(escape(printable(cell.text + note)))
        table.add_row(*words)
    return table
