"""The page: what is in it, what is left out, what it must never hold."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.report.made_up import HOSTILE, SECTIONS, Page, full_report
from yolox.report import Curve, Mark, ModelRow, Picture, Report, render, save_report
from yolox.report.formats import count, file_size, milliseconds, share
from yolox.report.render import MAX_CURVES, chosen_curves
from yolox.report.tables import answers, class_table, model_table
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger


def _svgs(html: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)


def test_every_section_is_there_and_nothing_comes_from_outside() -> None:
    html = render(full_report())
    page = Page(html)
    assert page.ids() == {*SECTIONS, "again"}
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) == {"http://www.w3.org/2000/svg"}
    for source in (*page.attribute("src"), *page.attribute("href")):
        assert source.startswith("data:")
    policy = page.attribute("content")
    assert any(text.startswith("default-src 'none'; img-src data:;") for text in policy)
    assert "@import" not in html
    assert "url(" not in html


def test_diagrams_are_valid_xml_with_title_and_description() -> None:
    svgs = _svgs(render(full_report(HOSTILE)))
    # Trade-offs, classes, curves, parts of the network, scales, marks on pictures.
    assert len(svgs) == 2 + 4 + 2 + 2 + 1 + 1
    for svg in svgs:
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        first, second = (child.tag.rpartition("}")[2] for child in root[:2])
        assert (first, second) == ("title", "desc")
        assert root[0].text


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("asked", "asked"),
        ("classes", "classes"),
        ("curves", "curves"),
        ("layers", "channels"),
        ("scales", "scales"),
        ("pairs", "pictures"),
    ],
)
def test_a_part_that_is_missing_is_left_out(field: str, section: str) -> None:
    empty = None if field == "scales" else ()
    page = Page(render(dataclasses.replace(full_report(), **{field: empty})))
    assert page.ids() == {*SECTIONS, "again"} - {section}


def test_one_model_with_nothing_known_is_a_page_too() -> None:
    row = ModelRow(label="alone", role="before", params=1234)
    page = Page(render(Report(title="t", date="2026-01-02", models=(row,))))
    assert page.ids() == {"models"}
    assert [tag for tag, _ in page.tags].count("th") == 3  # model, parameters; the row's
    assert "as fast" not in page.text
    assert "1.23 k" in page.text


def test_without_latency_there_is_neither_column_nor_diagram() -> None:
    report = full_report()
    rows = tuple(dataclasses.replace(row, latencies=()) for row in report.models)
    html = render(dataclasses.replace(report, models=rows))
    assert "onnxruntime" not in html
    assert "atency" not in html
    assert "Not measured: give the report the JSON file that yolox bench writes." in html
    assert len(_svgs(html)) == 1 + 4 + 2 + 2 + 1 + 1


def test_times_of_other_models_are_not_taken_for_those_of_the_two() -> None:
    report = full_report()
    rows = tuple(
        dataclasses.replace(row, latencies=() if row.role else row.latencies)
        for row in report.models
    )
    assert any(row.latencies for row in rows)
    html = render(dataclasses.replace(report, models=rows))
    assert "Not measured: the times are not of" in html
    assert "give the report the JSON file" not in html


def test_the_line_of_a_diagram_is_explained_where_there_is_one() -> None:
    report = full_report()
    assert "The dashed line joins" in render(report)
    (best, *_), costs = report.models, (3, 2, 1)
    rows = tuple(
        dataclasses.replace(
            best, label=str(macs), role=role, macs=macs, ap50_95=0.1 * (4 - macs), latencies=()
        )
        for role, macs in zip(("before", "", "after"), costs, strict=True)
    )
    assert "The dashed line joins" not in render(dataclasses.replace(report, models=rows))


def test_hostile_names_are_text() -> None:
    page = Page(render(full_report(HOSTILE)))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count("<script>window.broken = 1</script>") >= 8


def test_a_model_that_became_slower_is_named_at_the_top() -> None:
    report = full_report()
    assert "slower" not in Page(render(report)).text
    swapped = {"before": "after", "after": "before", "": ""}
    rows = tuple(dataclasses.replace(row, role=swapped[row.role]) for row in report.models)
    text = Page(render(dataclasses.replace(report, models=rows))).text
    assert "before is slower than after in onnxruntime, 1 thread." in text
    assert text.index("is slower than") < text.index("How much faster?")


def test_figures_relative_to_the_model_before() -> None:
    report = full_report()
    table = model_table(report)
    assert table.columns == (
        "model",
        "MACs",
        "parameters",
        "file",
        "onnxruntime, 1 thread",
        "AP50-95",
        "AP50",
    )
    assert [cell.text for cell in table.rows[2]] == [
        "after",
        "200\u202fM",
        "2.00\u202fM",
        "8.00\u202fMB",
        "12.5\u202fms",
        "0.480",
        "0.790",
    ]
    assert [cell.note for cell in table.rows[2][1:]] == [
        "50\u202f%",
        "50\u202f%",
        "50\u202f%",
        "1.60\u202f× as fast",
        "−0.020",
        "−0.010",
    ]
    assert [cell.tone for cell in table.rows[2][4:]] == ["better", "worse", "worse"]
    assert all(not cell.note for cell in table.rows[0])
    smaller, faster, cost = answers(report)
    assert [tile.name for tile in smaller.tiles] == [
        "of the MACs",
        "of the parameters",
        "of the file",
    ]
    (speed,) = faster.tiles
    assert (speed.name, speed.figure) == ("onnxruntime, 1 thread", "1.60\u202f× as fast")
    assert (speed.note, speed.tone) == ("12.5\u202fms, was 20.0\u202fms", "better")
    assert [tile.name for tile in cost.tiles] == ["AP50-95", "AP50"]
    assert (cost.tiles[0].figure, cost.tiles[0].note) == ("−0.020", "0.480, was 0.500")
    assert "better" in Page(render(report)).attribute("class")


def test_classes_without_objects_have_no_figure_to_sort_by() -> None:
    table = class_table(full_report().classes, compared=True)
    assert [cell.text for cell in table.rows[0][1:5]] == ["10", "0.500", "0.250", "−0.250"]
    assert table.rows[0][4].value == pytest.approx(-0.25)
    assert [(cell.text, cell.value) for cell in table.rows[2][2:5]] == 3 * [("–", None)]
    assert table.rows[3][4].text == "±0"
    alone = class_table(full_report().classes, compared=False)
    assert alone.columns == ("class", "objects", "AP50-95", "0 to 1")


def test_of_many_classes_the_mean_and_those_that_changed_most_are_drawn() -> None:
    flat = (0.5, 0.5)
    curves = [
        Curve(name=f"c{i}", objects=1, before=flat, after=(0.5, 0.5 + (i % 7) / 20))
        for i in range(40)
    ]
    chosen = chosen_curves(curves)
    assert len(chosen) == MAX_CURVES
    assert chosen[0] is curves[0]
    left = [abs(c.after[1] - 0.5) for c in curves[1:] if c not in chosen]
    assert min(abs(c.after[1] - 0.5) for c in chosen[1:]) >= max(left)
    page = Page(render(dataclasses.replace(full_report(), curves=tuple(curves))))
    assert "The 28 classes that changed least are not drawn." in page.text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(897_144), "897 k"),
        (count(1_239_000_000), "1.24 G"),
        (count(999), "999"),
        (file_size(691_323), "691 kB"),
        (file_size(3_852_155), "3.85 MB"),
        (milliseconds(0.1234), "0.123 ms"),
        (milliseconds(9.996), "10.0 ms"),
        (milliseconds(1234.5), "1,234 ms"),
        (share(113, 897), "13 %"),
        (share(8, 100), "8.0 %"),
    ],
)
def test_figures_as_texts(shown: str, expected: str) -> None:
    assert shown.replace("\u202f", " ") == expected


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    save_report(full_report(), path)
    assert path.read_text(encoding="utf-8") == render(full_report())
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="it is a folder"):
        save_report(full_report(), tmp_path)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_page_that_would_be_too_large_shows_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = full_report()
    (pair,) = report.pairs
    uri = "data:image/jpeg;base64," + 9999 * "AAAA"
    large = tuple(dataclasses.replace(picture, uri=uri) for picture in pair.pictures)
    pair = dataclasses.replace(pair, pictures=large)
    pairs = tuple(dataclasses.replace(pair, name=f"image_{i}.jpg") for i in range(3))
    whole = dataclasses.replace(report, pairs=pairs)
    two = render(dataclasses.replace(whole, pairs=pairs[:2]))
    setup_logger()
    monkeypatch.setitem(save_report.__globals__, "MAX_BYTES", len(two) + 5_000)
    save_report(whole, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == two
    assert "2 of 3 images are shown" in capsys.readouterr().err
    monkeypatch.setitem(save_report.__globals__, "MAX_BYTES", 1000)
    save_report(whole, tmp_path / "page.html")
    assert "image_0.jpg" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "without any image: compare fewer models" in capsys.readouterr().err


def test_a_box_beyond_the_picture_is_framed_within_it() -> None:
    report = full_report()
    (pair,) = report.pairs
    first = pair.pictures[0]
    marks = (Mark(box=(-30.0, -8.0, first.width + 9.0, 20.0), name="cat 0.31"),)
    pictures = (dataclasses.replace(first, marks=marks), *pair.pictures[1:])
    pairs = (dataclasses.replace(pair, pictures=pictures),)
    html = render(dataclasses.replace(report, pairs=pairs))
    frame = f'class="dash" x="2" y="2" width="{first.width - 4}" height="15.5"'
    assert frame in html


def test_what_cannot_be_a_report() -> None:
    row = ModelRow(label="a", role="before")
    for models, complaint in (
        ((), "one model with the role before"),
        ((row, row), "two models share a label: a"),
    ):
        with pytest.raises(UserError, match=complaint):
            Report(title="", date="", models=models)
    with pytest.raises(UserError, match="data:image/"):
        Picture(label="", uri="http://example.org/a.png", width=1, height=1, found=0)
    with pytest.raises(UserError, match="role of 'a'"):
        ModelRow(label="a", role="middle")
