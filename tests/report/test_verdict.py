"""What the page says first: a loss looks like one, on every kind of paper."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import files
from io import StringIO

import pytest
from rich.console import Console

from tests.report.made_up import SECTIONS, Page, full_report
from yolox.report import ModelRow, Report, below_the_cut, judge, render, summary_table

Colour = tuple[float, float, float]

# Of the style sheet: highlighted rows, and the verdict on a failure.
_TINTS = {"row": ("after", 0.09), "failure": ("worse", 0.10)}


def _compared(before: float | None, after: float | None, times: float = 2.0) -> Report:
    """A report on a model whose AP50-95 went from one to the other, so many times as fast."""
    report = full_report()
    first, middle, last = report.models
    first = dataclasses.replace(first, ap50_95=before)
    old = first.latencies[0]
    latency = dataclasses.replace(old, ms=old.ms / times)
    last = dataclasses.replace(last, ap50_95=after, latencies=(latency,))
    return dataclasses.replace(report, models=(first, middle, last), change_interval=None)


@pytest.mark.parametrize(
    ("before", "after", "times", "kind"),
    [
        (0.767, 0.043, 1.43, "failed"),
        (0.5, 0.399, 2.0, "failed"),
        (0.5, 0.401, 2.0, "price"),
        (0.5, 0.489, 2.0, "price"),
        (0.5, 0.491, 2.0, "kept"),
        (0.5, 0.6, 2.0, "kept"),
        (0.5, 0.5, 0.9, "price"),  # slower
        (0.0, 0.0, 2.0, "failed"),
        (0.5, None, 2.0, "unknown"),
    ],
)
def test_what_counts_as_a_failure(
    before: float | None, after: float | None, times: float, kind: str
) -> None:
    report = _compared(before, after, times)
    found = judge(report)
    assert found
    assert found.kind == kind
    page = Page(render(report))
    assert f"verdict {kind}" in page.attribute("class")
    assert found.label in page.text


def test_a_failure_is_told_before_what_it_bought() -> None:
    report = _compared(0.767, 0.043, 1.43)
    found = judge(report)
    assert found
    assert (
        found.sentence
        == "AP 0.767\N{NO-BREAK SPACE}→ 0.043, 1.43\u202f× as fast, 50\u202f% of the MACs"
    )
    assert found.remarks[0].startswith("94\u202f% of the AP is lost")
    text = Page(render(report)).text
    assert text.index("Failed") < text.index("1.43") < text.index("How much smaller?")


def test_an_interval_that_holds_zero_is_told() -> None:
    report = full_report()
    found = judge(report)
    assert found
    assert found.remarks[-1].endswith(
        "from −0.050 to +0.010 (95 %): they cannot tell the two models apart."
    )
    sure = judge(dataclasses.replace(report, change_interval=(-0.05, -0.01)))
    assert sure
    assert "apart" not in sure.remarks[-1]


def test_one_model_alone_has_no_verdict() -> None:
    report = Report(title="t", date="2026-01-02", models=(ModelRow(label="a", role="before"),))
    assert judge(report) is None
    assert "verdict" not in " ".join(Page(render(report)).attribute("class"))


def test_answers_come_before_everything_and_drawings_before_tables() -> None:
    page = Page(render(full_report()))
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == [*SECTIONS, "again"]
    text = page.text
    for name in ("datasets/cat", "192×256", "20 epochs"):
        assert text.index(name) < text.index("Accuracy against cost"), name


def test_what_only_a_training_reads_is_no_part_of_the_size() -> None:
    report = full_report()
    *others, last = report.models
    last = dataclasses.replace(last, file_bytes=1_830_000, training_bytes=3_520_000)
    text = Page(render(dataclasses.replace(report, models=(*others, last)))).text
    assert "1.83 MB, was 16.0 MB" in text
    assert "after is 5.35 MB with it." in text


def test_an_end_below_the_cut_is_a_warning() -> None:
    report = full_report("pruned")  # 0.55; 0.48 in the end
    assert "0.480 after fine-tuning, 0.550 right after pruning" in below_the_cut(report)
    better = dataclasses.replace(report.models[2], ap50_95=0.56)
    assert not below_the_cut(dataclasses.replace(report, models=(*report.models[:2], better)))
    assert not below_the_cut(full_report("else"))


def test_the_terminal_shows_the_models_side_by_side() -> None:
    out = StringIO()
    Console(file=out, width=120).print(summary_table(full_report("pruned")))
    lines = out.getvalue().replace("\u202f", " ").splitlines()
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in lines
        if "│" in line
    }
    assert list(rows) == ["before", "pruned", "after"]
    assert rows["after"] == [
        "200 M (50 %)",
        "2.00 M (50 %)",
        "8.00 MB (50 %)",
        "12.5 ms (1.60 ×)",
        "0.480 (−0.020)",
    ]


def _palettes() -> list[dict[str, Colour]]:
    """The style sheet's colours for light screens, dark ones and paper."""
    css = files("yolox.report").joinpath("page", "report.css").read_text(encoding="utf-8")
    blocks = [
        dict(re.findall(r"--(\w+): #(\w+)", block)) for block in re.findall(r":root {([^}]*)", css)
    ]
    for name, part in _TINTS.values():
        assert re.search(
            rf"color-mix\(in srgb, var\(--{name}\) {100 * part:g}%, var\(--paper\)", css
        )
    return [{name: _colour(text) for name, text in block.items()} for block in blocks]


def _colour(text: str) -> Colour:
    digits = "".join(2 * digit for digit in text) if len(text) == 3 else text
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def _contrast(one: Colour, other: Colour) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: Colour) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _mixed(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (part * a + (1 - part) * b for a, b in zip(one, other, strict=True))
    return red, green, blue


@pytest.mark.parametrize("number", range(3), ids=["light", "dark", "paper"])
def test_text_and_drawings_can_be_told_from_what_is_behind_them(number: int) -> None:
    palettes = _palettes()
    assert len(palettes) == 3
    colours = palettes[number]
    paper = colours["paper"]
    grounds = {"paper": paper, "panel": colours["panel"]}
    for ground, (name, part) in _TINTS.items():
        grounds[ground] = _mixed(colours[name], paper, part)
    for text in ("ink", "soft", "better", "worse", "price"):
        for ground, colour in grounds.items():
            assert _contrast(colours[text], colour) >= 4.5, (text, ground)  # WCAG AA, 1.4.3
    assert _contrast(colours["after"], paper) >= 4.5  # names in a diagram
    assert _contrast(colours["before"], paper) >= 3  # WCAG AA, 1.4.11
