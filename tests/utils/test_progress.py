import io
import itertools
import sys

import pytest
from loguru import logger

from yolox.utils import progress
from yolox.utils.progress import track


@pytest.fixture(autouse=True)
def log_that_had_a_line(monkeypatch):
    monkeypatch.setattr(progress, "silence", 0.0)


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


def test_yields_in_silence_without_a_terminal(capsys):
    assert list(track(iter("abc"), "Reading")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_shows_a_bar_on_a_terminal_of_the_first_process_only(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    assert list(track([1, 2, 3], "Reading")) == [1, 2, 3]
    assert "Reading" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "stderr", FakeTerminal())
    assert list(track([1, 2, 3], "Reading")) == [1, 2, 3]
    assert sys.stderr.getvalue() == ""


def test_a_log_has_a_line_at_least_every_half_a_minute(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    lines = []
    handler = logger.add(lines.append, format="{message}")
    try:
        now = itertools.count(step=9)  # seconds between two looks at the clock
        assert list(track(range(10), "scoring batch", clock=lambda: next(now))) == list(range(10))
        monkeypatch.setattr(progress, "silence", 0.0)
        quick = itertools.count(step=0.5)
        assert list(track(range(10), "reading", clock=lambda: next(quick))) == list(range(10))
    finally:
        logger.remove(handler)
    assert lines == [f"scoring batch: {number} of 10\n" for number in (4, 8)]


def test_short_loops_behind_one_another_are_no_silence(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    lines = []
    handler = logger.add(lines.append, format="{message}")
    try:
        now = itertools.count(step=3)
        for _ in range(4):
            assert list(track(range(4), "scoring", clock=lambda: next(now))) == list(range(4))
    finally:
        logger.remove(handler)
    assert lines == ["scoring: 1 of 4\n"]  # of the third loop


def test_a_loop_that_logs_by_itself_gets_no_line(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    lines = []
    handler = logger.add(lines.append, format="{message}")
    try:
        now = itertools.count(step=9)
        for number in track(range(10), "Epoch 1/8", clock=lambda: next(now)):
            if number % 2:
                logger.info(f"iter {number}")
    finally:
        logger.remove(handler)
    assert lines == [f"iter {number}\n" for number in (1, 3, 5, 7, 9)]
