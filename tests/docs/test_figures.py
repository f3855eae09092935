"""The pictures of the documentation are those that its script draws."""

from __future__ import annotations

import runpy

from tests.runs import REPO

DOCS = REPO / "docs"
FIGURES = runpy.run_path(str(DOCS / "figures.py"))
PICTURES = {".jpg", ".png", ".svg"}


def test_drawings_and_charts_are_up_to_date() -> None:
    for name, draw in FIGURES["DRAWINGS"].items():
        there = (DOCS / name).read_text(encoding="utf-8")
        assert there == draw() + "\n", f"docs/{name}: make figures"


def test_every_picture_has_its_command() -> None:
    there = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*") if p.suffix in PICTURES}
    assert there == {*FIGURES["DRAWINGS"], *FIGURES["PIXELS"]}


def test_the_chart_says_what_the_results_say() -> None:
    chart = FIGURES["tradeoff"]()
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    for ratio in ("1.9", "2.9", "3.8", "7.1"):
        assert f"{ratio} ×" in chart
        assert f"| {ratio}" in results
