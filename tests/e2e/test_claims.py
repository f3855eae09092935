"""Two runs into one folder: the second is told so, and touches nothing of the first."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.forks import Forked, at_step
from tests.runs import command, error_lines, read, tree
from yolox.tools import compress, prunmodel, train
from yolox.utils.locks import claimed


def _pause(folder: Path) -> None:
    """At its second step a run says that it is there, and waits to be told to go on."""

    def wait(_: object) -> None:
        (folder / "there").write_text("")
        (folder / "go").read_text()

    at_step(2, wait)


@pytest.fixture
def running(own_exp: Path, tmp_path: Path, trained: Path) -> Forked:
    """A run in ``out/tiny`` that is in its first epoch."""
    for name in ("there", "go"):
        os.mkfifo(tmp_path / name)
    run = Forked(
        tmp_path / "log", "--precision", "fp32", "-f", own_exp, "max_epoch", 1, "no_aug_epochs", 0,
        before=partial(_pause, tmp_path),
    )  # fmt: skip
    (tmp_path / "there").read_text()
    return run


def test_a_second_run_is_told_and_other_commands_are_not_kept_out(
    running: Forked,
    own_exp: Path,
    tmp_path: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "out" / "tiny"
    before = tree(folder)
    assert command(train.main, "--precision", "fp32", "-f", own_exp) == 1
    log = capsys.readouterr().err
    (error,) = error_lines(log)
    assert f"another run writes into {folder} (process {running.process.pid} on " in error
    assert "Traceback" not in log
    assert tree(folder) == before
    source = trained / "best_ckpt.pth"
    bare = ("--importance", "l1", "--reconstruct", 0, "--no-latency")
    args = (*bare, "-c", source, "-o", folder / "pruned.pth", "-f", own_exp)
    assert command(prunmodel.main, *args) == 0
    with claimed(folder, name="pruned.pth"):  # by this process: nobody is kept out of its own
        assert command(prunmodel.main, *args) == 0
    (tmp_path / "go").write_text("")
    status, log = running.finish()
    assert status == 0, log
    assert read(folder / "latest_ckpt.pth")["train"]["epoch"] == 1
    assert not [path for path in folder.rglob("*") if path.name.endswith(("lock", "tmp"))]


def test_compress_keeps_to_a_folder_of_its_own(
    running: Forked,
    own_exp: Path,
    tmp_path: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder of the run that is going on, taken for that of a compression."""
    folder = tmp_path / "out" / "tiny"
    before = tree(folder)
    args = ("-c", trained / "best_ckpt.pth", "-o", folder, "-f", own_exp)
    assert command(compress.main, *args) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "another run writes into" in error
    assert tree(folder) == before
    assert command(compress.main, *args, "--dry-run") == 0
    assert tree(folder) == before
    (tmp_path / "go").write_text("")
    assert running.finish()[0] == 0
