"""Names that act instead of being seen: escaped in log, terminal, page and picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from rich.markup import escape
from rich.table import Table

from tests.report.made_up import full_report
from yolox.report.render import render
from yolox.report.svg import text
from yolox.tools import cli
from yolox.utils.logger import setup_logger
from yolox.utils.printable import printable
from yolox.utils.visualize import vis

EVIL = "a\x1b[31mb\x00c\u202ed\u2066e\x07f\rg\x85h\u2028i\udc80j"
TAMED = "a\\x1b[31mb\\x00c\\u202ed\\u2066e\\x07f\\rg\\x85h\\u2028i\\udc80j"


def test_what_is_escaped_and_what_is_not() -> None:
    assert printable(EVIL) == TAMED
    assert printable("a\nb\tc") == "a\\nb\\tc"
    assert printable("a\nb\tc\x00", keep="\n\t") == "a\nb\tc\\x00"
    for name in (
        "traffic light",
        "猫",
        "Straße",
        "کتاب\u200cخانه",
        "क्\u200dष",
        "👩\u200d🚒",
        "a\xa0b",
    ):
        assert printable(name) == name


@given(st.text(st.characters(), max_size=20))
def test_what_comes_out_can_be_written_and_holds_no_control(name: str) -> None:
    shown = printable(name)
    shown.encode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    assert printable(shown) == shown


def test_in_the_log_and_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    setup_logger(tmp_path)
    logger.info(f"class {EVIL}\n00:00:00 INFO    all is well\nby class\n  - a")
    setup_logger()
    for said in ((tmp_path / "train_log.txt").read_text(), capfd.readouterr().err):
        assert f"class {TAMED}\n  00:00:00 INFO    all is well\nby class\n  - a" in said
        assert not set("\x1b\x00\u202e\r") & set(said)


def test_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=escape(EVIL))
    table.add_column("class", overflow="fold")
    table.add_row(escape(f"{EVIL}:car:[red]"))
    cli.console().print(table)
    said = capsys.readouterr().out
    assert f"{TAMED}:car:[red]" in said
    assert not set("\x1b\x00\u202e\r") & set(said)


def test_on_the_page() -> None:
    assert f">{TAMED}</text>" in text(EVIL, 0, 0)
    page = render(full_report(f"<b>{EVIL}</b>"))
    assert f"&lt;b&gt;{TAMED}&lt;/b&gt;" in page
    assert not set("\x1b\x00\u202e\r") & set(page)


def test_in_pictures() -> None:
    picture = np.full((80, 400, 3), 90, np.uint8)
    box = [[10.0, 40.0, 300.0, 70.0]]
    pictures = [
        vis(picture, box, [0.5], [0], class_names=[name]) for name in ("a\x1bb\n", r"a\x1bb\n")
    ]
    assert np.array_equal(*pictures)
