"""Stages are run once, in order; what changed, and all after it, is run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from yolox.tools.stages import Record, Stage, run_stages
from yolox.utils.errors import UserError


class Work:
    """Two stages that write files, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, ...]] = []
        self.fails = False

    def _command(self, output: Path) -> object:
        def main(words: Sequence[str] | None) -> None:
            assert words is not None
            self.calls.append(tuple(words))
            output.parent.mkdir(exist_ok=True)
            (output.parent / "half").write_text("")
            if self.fails:
                raise UserError("cut off")
            output.write_text(" ".join(words))

        return main

    def stages(self, first: str = "a", second: str = "b") -> list[Stage]:
        made = []
        for name, words in (("one", (first,)), ("two", (second,))):
            folder = self.folder / name
            made.append(
                Stage(
                    name=name,
                    tool="tool",
                    main=self._command(folder / "out"),  # type: ignore[arg-type]
                    words=words,
                    outputs=(folder / "out",),
                    folders=(folder,),
                    checkpoint=folder / "half",
                    resumed=(*words, "--resume"),
                )
            )
        return made

    def run(self, first: str = "a", second: str = "b", origin: str = "o") -> list[tuple[str, ...]]:
        self.calls.clear()
        run_stages(self.stages(first, second), Record(self.folder / "run.json", origin))
        return list(self.calls)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_what_is_done_is_not_done_again(work: Work) -> None:
    assert work.run() == [("a",), ("b",)]
    assert work.run() == []


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"first": "x"}, [("x",), ("b",)]),
        ({"second": "x"}, [("x",)]),
        ({"origin": "x"}, [("a",), ("b",)]),
    ],
)
def test_a_change_is_followed_by_all_that_depends_on_it(
    work: Work, change: dict[str, str], again: list[tuple[str, ...]]
) -> None:
    work.run()
    (work.folder / "two" / "half").write_text("stale")
    assert work.run(**change) == again
    assert (work.folder / "two" / "half").read_text() == ""


def test_a_lost_output_is_made_again(work: Work) -> None:
    work.run()
    (work.folder / "two" / "out").unlink()
    (work.folder / "two" / "half").unlink()
    assert work.run() == [("b",)]


def test_what_comes_after_a_stage_done_again_is_done_again(work: Work) -> None:
    work.run()
    (work.folder / "one" / "out").unlink()
    (work.folder / "one" / "half").unlink()
    assert work.run() == [("a",), ("b",)]
    # Also where the run is stopped in between.
    (work.folder / "one" / "out").unlink()
    work.fails = True
    with pytest.raises(UserError, match="cut off"):
        work.run()
    work.fails = False
    assert [words[0] for words in work.run()] == ["a", "b"]


def test_a_stage_that_was_cut_off_goes_on_where_it_was(work: Work) -> None:
    work.fails = True
    with pytest.raises(UserError, match="cut off"):
        work.run()
    work.fails = False
    assert work.run() == [("a", "--resume"), ("b",)]
    # With other arguments it would not be the same run.
    work.fails = True
    with pytest.raises(UserError, match="cut off"):
        work.run(first="x")
    work.fails = False
    assert work.run(first="y") == [("y",), ("b",)]


def test_a_stage_that_writes_nothing_is_an_error(work: Work) -> None:
    stages = [Stage(name="n", tool="t", main=lambda _: None, words=(), outputs=(Path("none"),))]
    with pytest.raises(UserError, match="stage 1 of 1, n: it ended without writing none"):
        run_stages(stages, Record(work.folder / "run.json", "o"))


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*run\.json .*delete it"):
        Record(tmp_path / "run.json", "o")
