"""The documentation's table of fields is that of the code, and says something of each."""

from __future__ import annotations

import runpy

from tests.runs import REPO
from yolox.exp import VOCExp, YOLOExp


def test_table_of_fields_is_current_and_whole() -> None:
    made = runpy.run_path(str(REPO / "docs" / "field_table.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run docs/field_table.py"
    rows = [line.split(" | ") for line in made["table"]().splitlines()[2:]]
    assert all(len(row) == 5 and len(row[4].strip(" |")) > 2 for row in rows)
    named = {row[1].strip("`") for row in rows}
    wanted = {*VOCExp().field_types(), *YOLOExp().field_types()} - {"model"}
    assert named == wanted
