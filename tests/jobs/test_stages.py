"""Stages are run once, in order; what changed, and all after it, is run again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from loguru import logger

from yolox.jobs.compress.record import Record
from yolox.jobs.compress.run import run_stages
from yolox.jobs.compress.stage import Stage
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed


@dataclass(frozen=True, kw_only=True)
class Call(Stage):
    """A function that is called with the stage's words."""

    tool = "tool"
    main: Callable[[list[str]], None]
    argument: object = ""
    recipe: str = ""

    def run(self, *, resumes: bool = False) -> None:
        self.main(self.words(resumes=resumes))

    def flags(self, *, resumes: bool = False) -> tuple[object, ...]:
        return (self.argument, *(("--resume",) if resumes else ()))

    def named_recipe(self) -> tuple[str, ...]:
        return (self.recipe,) if self.recipe else ()


class LongCall(Call):
    """One that goes on by itself where it was cut off."""

    goes_on = True


class Work:
    """Two stages that write files, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, ...]] = []
        self.fails = False

    def _command(self, output: Path) -> Callable[[list[str]], None]:
        def main(words: list[str]) -> None:
            self.calls.append(tuple(words))
            output.parent.mkdir(exist_ok=True)
            (output.parent / "latest_ckpt.pth").write_text("")
            if self.fails:
                raise UserError("cut off")
            output.write_text(" ".join(words))

        return main

    def stages(self, first: object = "a", second: str = "b", recipe: str = "") -> list[Stage]:
        made: list[Stage] = []
        for name, argument in (("one", first), ("two", second)):
            folder = self.folder / name
            made.append(
                Call(
                    name=name,
                    main=self._command(folder / "out"),
                    argument=argument,
                    recipe=recipe,
                    outputs=(folder / "out",),
                    folders=(folder,),
                    checkpoint=folder / "latest_ckpt.pth",
                )
            )
        return made

    def run(
        self, first: object = "a", second: str = "b", recipe: str = "", origin: str = "o"
    ) -> list[tuple[str, ...]]:
        self.calls.clear()
        run_stages(self.stages(first, second, recipe), Record(self.folder / "run.json", origin))
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
    (work.folder / "two" / "latest_ckpt.pth").write_text("stale")
    assert work.run(**change) == again
    assert (work.folder / "two" / "latest_ckpt.pth").read_text() == ""


def test_a_training_that_is_done_anew_is_not_lost(work: Work) -> None:
    told: list[str] = []
    handle = logger.add(told.append, level="WARNING", format="{message}")
    for words in ("b", "x", "y"):
        work.run(second=words)
    logger.remove(handle)
    kept = [work.folder / name / "out" for name in ("two", "two_old1", "two_old2")]
    assert [file.read_text() for file in kept] == ["y", "b", "x"]
    assert f"what was there is kept in {work.folder / 'two_old2'}" in told[1]
    assert not (work.folder / "one_old1").exists()


def test_what_no_stage_made_is_not_removed(work: Work) -> None:
    work.run()
    record = work.folder / "run.json"
    content = json.loads(record.read_text())
    assert content["folders"] == ["one", "two"]
    del content["stages"]["two"]
    record.write_text(json.dumps(content | {"folders": ["one"]}))
    for file in (work.folder / "two").iterdir():
        file.unlink()
    (work.folder / "two" / "mine").write_text("mine")
    work.run()
    assert (work.folder / "two_old1" / "mine").read_text() == "mine"
    (work.folder / "two" / "latest_ckpt.pth").unlink()
    work.run(second="x")
    assert not (work.folder / "two_old2").exists()


def test_how_a_path_is_written_does_not_matter(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work.folder)
    work.run(first=work.folder / "in")
    assert work.run(first=Path("in")) == []
    assert work.run(first=Path("two/../in")) == []
    assert work.run(first=Path("other")) == [("other",), ("b",)]


def test_the_recipe_is_told_by_the_origin(work: Work) -> None:
    work.run(recipe="r")
    assert work.run(recipe="other") == []
    assert work.run(recipe="other", origin="x") == [("a", "other"), ("b", "other")]


def test_a_lost_output_is_made_again(work: Work) -> None:
    work.run()
    (work.folder / "two" / "out").unlink()
    (work.folder / "two" / "latest_ckpt.pth").unlink()
    assert work.run() == [("b",)]


def test_what_comes_after_a_stage_done_again_is_done_again(work: Work) -> None:
    work.run()
    (work.folder / "one" / "out").unlink()
    (work.folder / "one" / "latest_ckpt.pth").unlink()
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


@pytest.mark.parametrize("goes_on", [False, True])
def test_half_of_a_stage_is_cleared_unless_it_goes_on_itself(goes_on: bool, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    seen: list[bool] = []

    def main(_: list[str]) -> None:
        seen.append(folder.exists())
        folder.mkdir(exist_ok=True)
        if len(seen) == 1:
            raise UserError("cut off")
        (folder / "out").write_text("")

    kind = LongCall if goes_on else Call
    stage = kind(name="n", main=main, outputs=(folder / "out",), folders=(folder,))
    with pytest.raises(UserError, match="cut off"):
        run_stages([stage], Record(tmp_path / "run.json", "o"))
    run_stages([stage], Record(tmp_path / "run.json", "o"))
    assert seen == [False, goes_on]


def test_a_stage_that_writes_nothing_is_an_error(work: Work) -> None:
    stages = [Call(name="n", main=lambda _: None, outputs=(Path("none"),))]
    with pytest.raises(UserError, match="stage 1 of 1, n: it ended without writing none"):
        run_stages(stages, Record(work.folder / "run.json", "o"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '{"stages": {}}',
        '{"stages": [], "folders": []}',
        '{"stages": {"a": 1}, "folders": []}',
        '{"stages": {}, "folders": [1]}',
        '{"stages": {"a": {"mark": 1, "command": "c"}}, "folders": []}',
        '{"stages": {"a": {"mark": "m", "command": "c", "seconds": "1"}}, "folders": []}',
    ],
)
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot read .*run\.json .*delete it"):
        Record(tmp_path / "run.json", "o")


def test_a_folder_that_another_run_writes_into_is_not_cleared(work: Work, tmp_path: Path) -> None:
    work.run()
    with claimed(tmp_path / "two"):
        child = os.fork()
        if not child:
            try:
                work.run(second="x")
            except UserError as error:
                os._exit(0 if "another run writes into" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "two" / "out").read_text() == "b"


def test_a_folder_that_cannot_be_cleared_is_told(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    work.run()
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match=r"two runs again, and .*two cannot be put out of its way"):
        work.run(second="x")
