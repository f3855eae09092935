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


@pytest.fixture
def lines(monkeypatch):
    """What the first process logs."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    logged = []
    handler = logger.add(logged.append, format="{message}")
    yield logged
    logger.remove(handler)


def loop(count, description, seconds):
    """Go through a loop, so many seconds passing between two looks at the clock."""
    now = itertools.count(step=seconds)
    return track(range(count), description, clock=lambda: next(now))


def test_a_log_has_a_line_at_least_every_half_a_minute(lines):
    assert list(loop(10, "scoring batch", 9)) == list(range(10))
    assert lines == [f"scoring batch: {number} of 10\n" for number in (4, 8)]


def test_a_quick_loop_gets_no_line(lines):
    assert list(loop(10, "reading", 0.5)) == list(range(10))
    assert lines == []


def test_short_loops_behind_one_another_are_no_silence(lines):
    for _ in range(4):
        list(loop(4, "scoring", 3))
    assert lines == ["scoring: 1 of 4\n"]  # of the third loop


def test_a_loop_that_logs_by_itself_gets_no_line(lines):
    for number in loop(10, "Epoch 1/8", 9):
        if number % 2:
            logger.info(f"iter {number}")
    assert lines == [f"iter {number}\n" for number in (1, 3, 5, 7, 9)]
