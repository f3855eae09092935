"""One process at a time: claims of folders and names, across forks, kills and links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runs import environment
from yolox.utils import locks
from yolox.utils.errors import UserError
from yolox.utils.locks import claimed
from yolox.utils.scratch import scratch_folder

_HOLD = """
import os, sys
from pathlib import Path
from yolox.utils.locks import claimed
with claimed(Path(sys.argv[1])):
    # A forked process tells its own number: only then has it given up the claim.
    if "fork" not in sys.argv or not os.fork():
        print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has claimed a folder, and one forked from it where "fork" is asked for."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder), *flags],
        env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def in_another_process(action: Callable[[], None]) -> str:
    """What a forked process is told; empty where nothing is wrong."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        message = ""
        try:
            action()
        except UserError as error:
            message = str(error)
        os.write(writing, message.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        message = file.read()
    os.waitpid(child, 0)
    return message


def claim(folder: Path, name: str = "") -> None:
    with claimed(folder, name=name):
        pass


def test_a_folder_is_claimed_by_one_process(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with claimed(tmp_path / "run"):
        for path in (tmp_path / "run", tmp_path / "link", tmp_path / "run/../run"):
            told = in_another_process(lambda path=path: claim(path))  # type: ignore[misc]
            assert f"another run writes into {path} (process {os.getpid()} on " in told
            assert "choose another folder" in told
        assert in_another_process(lambda: claim(tmp_path)) == ""
        assert in_another_process(lambda: claim(tmp_path / "run", "a.pth")) == ""
    assert in_another_process(lambda: claim(tmp_path / "run")) == ""
    assert not (tmp_path / "run").exists(), "an empty folder that it made goes"


def test_a_name_is_claimed_for_itself(tmp_path: Path) -> None:
    with claimed(tmp_path, name="a.pth"):
        assert "a.pth (process" in in_another_process(lambda: claim(tmp_path, "a.pth"))
        assert in_another_process(lambda: claim(tmp_path, "b.pth")) == ""


def test_a_process_may_claim_what_it_has(tmp_path: Path) -> None:
    with claimed(tmp_path):
        claim(tmp_path)
        (tmp_path / ".lock").read_text()
        assert in_another_process(lambda: claim(tmp_path)) != ""


def test_a_killed_process_claims_nothing_even_where_its_workers_live(tmp_path: Path) -> None:
    with holder(tmp_path, "fork") as (process, worker):
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            claim(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(worker, 0)
        claim(tmp_path)
        os.kill(worker, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_does_not_end_the_claim_of_its_parent(tmp_path: Path) -> None:
    own = claimed(tmp_path)
    with own:
        assert in_another_process(lambda: own.__exit__(None, None, None)) == ""
        assert in_another_process(lambda: claim(tmp_path)) != ""


def test_where_there_are_no_locks_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "hold", lambda _: None)
    with claimed(tmp_path):
        assert in_another_process(lambda: claim(tmp_path)) == ""


def test_errors_inside_are_not_taken_for_the_locks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), claimed(tmp_path):
        (tmp_path / "nowhere").read_text()
    assert list(tmp_path.iterdir()) == []


def test_scratch_folders_of_killed_processes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "yolox-scratch-mine").mkdir()  # not one of ours: it holds no lock file

    def killed() -> None:
        with scratch_folder() as folder:
            (folder / "model.onnx").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    in_another_process(killed)
    (left,) = tmp_path.glob("*/model.onnx")
    with scratch_folder() as folder:
        assert not left.exists()
        in_another_process(lambda: scratch_folder().__enter__() and None)
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir() if not (path / ".lock").exists()] == [
        "yolox-scratch-mine"
    ]


def test_a_folder_that_nothing_was_written_into_goes(tmp_path: Path) -> None:
    with claimed(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
    assert not (tmp_path / "new").exists()
    with claimed(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "a.txt").write_text("kept")
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["a.txt"]
    (tmp_path / "empty").mkdir()
    with claimed(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir(), "it was there before"
