"""Files are whole or not there, and those that belong together change together."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from yolox.utils.errors import UserError
from yolox.utils.files import (
    remove_leftovers,
    replacing,
    replacing_together,
    require_writable,
    write_bytes,
    write_text,
)
from yolox.utils.locks import claimed


class _Error(UserError):
    pass


def killed(action: Callable[[], None]) -> bool:
    """Run in a forked process; whether it was killed, not done."""
    child = os.fork()
    if not child:
        try:
            action()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status)


def die(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ----------------------------------------------------------------------------------- one file


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert names(path.parent) == {"a.txt"}


def test_text_with_a_path_that_is_no_utf8_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a", os.fsdecode(b"\xff.jpg"))
    assert (tmp_path / "a").read_bytes() == b"\xff.jpg"


def test_a_link_to_a_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "far" / "b")
    write_text(tmp_path / "a", "1")
    write_text(tmp_path / "a", "2")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "far" / "b").read_text() == "2"
    assert names(tmp_path / "far") == {"b"}


def test_what_a_killed_write_left_is_used_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of it, and long")
            die()

    for _ in range(2):
        assert killed(half)
        assert path.read_text() == "old"
        assert len(names(tmp_path)) == 2
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == {"a.json"}


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as first:
        first.write_text("1")
        assert remove_leftovers(tmp_path, "*") == []
        with replacing(path) as second:
            assert second != first
            second.write_text("2")
        assert first.read_text() == "1"
    assert path.read_text() == "1"


def test_leftovers_go_and_other_files_stay(tmp_path: Path) -> None:
    def half() -> None:
        with replacing(tmp_path / "[1]_ckpt.pth"):
            die()

    assert killed(half)
    (tmp_path / ".notes.tmp").touch()
    assert len(remove_leftovers(tmp_path, "*_ckpt.pth")) == 1
    assert names(tmp_path) == {".notes.tmp"}


def test_a_link_in_the_way_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".a.0.tmp").symlink_to(tmp_path / "mine")
    (tmp_path / ".a.1.tmp").hardlink_to(tmp_path / "mine")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"


def full(number: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full(number))
    with pytest.raises(_Error, match=r"cannot write .*a \(.*the earlier a is whole") as caught:
        write_text(path, "new", _Error)
    assert "\n" not in str(caught.value)
    is_full = number in (errno.ENOSPC, errno.EDQUOT)
    assert ("Make room" in str(caught.value)) == ("free there" in str(caught.value)) == is_full
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_room_is_measured_where_a_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "far" / "b")
    asked = []
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage(path))
    monkeypatch.setattr(os, "fsync", full(errno.ENOSPC))
    with pytest.raises(UserError, match="Make room"):
        write_text(tmp_path / "a", "x")
    assert asked == [tmp_path / "far"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_renamed_file_is_not_removed_under_the_name_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """As soon as the name of a temporary file is free, another process may have it."""
    rename = Path.replace
    others = []

    def renamed(path: Path, target: Path) -> Path:
        result = rename(path, target)
        path.write_text("another's")
        others.append(path)
        if fails:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        write_text(tmp_path / "a", "mine")
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.read_text() for path in others] == ["another's"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/sys/kernel/a", "cannot write into /sys/kernel"),
        ("/proc/nowhere/a", "cannot write into /proc/nowhere"),
        ("/dev/null", "cannot write /dev/null: it is no regular file"),
        ("FOLDER", "it is a folder, name a file in it"),
        ("FOLDER/file/a", "cannot write into .*file"),
        ("FOLDER/" + "a" * 300, "File name too long"),
    ],
)
def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").touch()
    before = Path("/dev/null").lstat().st_mode
    with pytest.raises(_Error, match=message):
        write_text(Path(place.replace("FOLDER", str(tmp_path))), "x", _Error)
    assert names(tmp_path) == {"file"}
    assert Path("/dev/null").lstat().st_mode == before


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended: whoever is root may write where nobody else may."""
    monkeypatch.setattr(os, "open", full(errno.EROFS))
    for write in (lambda: write_text(tmp_path / "a", "x"), lambda: require_writable(tmp_path)):
        with pytest.raises(UserError, match=r"cannot write into .*Read-only file system"):
            write()
    with pytest.raises(UserError, match="Read-only"), claimed(tmp_path):
        pass
    assert names(tmp_path) == set()


def test_errors_of_the_work_in_between_are_not_taken_for_the_disks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "nowhere").read_text()
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "a"):
        raise ValueError("mine")
    assert names(tmp_path) == set()


def test_rights_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "a", "x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "plain")}
    assert len(modes) == 1


# --------------------------------------------------------------------------- several files


FILES = ("main", "plan", "report")


def _write(folder: Path, text: str) -> None:
    with replacing_together([folder / name for name in FILES]) as temporaries:
        for temporary in temporaries:
            temporary.write_text(text)


def test_files_change_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "old")
    fsync, calls = os.fsync, itertools.count()
    monkeypatch.setattr(
        os, "fsync", lambda fd: full(errno.ENOSPC)() if next(calls) == 2 else fsync(fd)
    )
    with pytest.raises(UserError, match=r"main .*No space left.*earlier main is whole"):
        _write(tmp_path, "new")
    assert {(tmp_path / name).read_text() for name in FILES} == {"old"}
    assert names(tmp_path) == set(FILES)


def test_a_kill_at_any_instant_leaves_no_files_of_two_writes(tmp_path: Path) -> None:
    """Each system call that changes the folder is an instant."""
    seen = set()
    for instant in itertools.count():
        _write(tmp_path, "old")

        def cut_off(instant: int = instant) -> None:
            steps = itertools.count()

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def made(*args: Any, **kwargs: Any) -> Any:
                    if next(steps) == instant:
                        die()
                    return call(*args, **kwargs)

                return made

            for name in ("unlink", "replace"):
                setattr(Path, name, counted(getattr(Path, name)))
            _write(tmp_path, "new")

        done = not killed(cut_off)
        left = {name: (tmp_path / name).read_text() for name in FILES if (tmp_path / name).exists()}
        assert len(set(left.values())) == 1, (instant, left)
        assert "main" in left
        seen.add(tuple(left.items()))
        _write(tmp_path, "again")
        assert names(tmp_path) == set(FILES)
        if done:
            break
    assert len(seen) > 3


def test_two_processes_do_not_write_the_same_files_at_once(tmp_path: Path) -> None:
    def second() -> None:
        try:
            _write(tmp_path, "second")
        except UserError:
            return
        die()

    with replacing_together([tmp_path / name for name in FILES]) as temporaries:
        assert not killed(second)
        for temporary in temporaries:
            temporary.write_text("first")
    assert {(tmp_path / name).read_text() for name in FILES} == {"first"}


# ------------------------------------------------------------------------------------ every write

# Functions that write elsewhere than to a temporary file of `replacing`, and why they may.
_OWN_WAY = {
    "cache_folder.locked": "the lock itself",
    "checkpoint.write_checkpoint": "to a temporary file that it is given",
    "clock._silent_programs": "to nowhere",
    "convert._write": "into the folder of `placing`",
    "image_cache._anonymous_file": "no name, no leftover",
    "layers.__init__": "a temporary folder",
    "ncnn._rename": "into the folder of `placing`",
    "openvino.to_openvino": "a temporary folder",
    "quantize_onnx.write_float": "into a scratch folder",
    "onnx.save": "into the folder of `placing`",
    "seal._write": "a digest in the place of another, as long",
    "sensitivity.__init__": "drops a line that a kill cut off",
    "sensitivity._append": "a log grows line by line",
    "synthetic._write": "into a folder that gets its name when it is whole",
    "synthetic.generate_demo_dataset": "as above",
    "tensorboard.start": "curves grow, and a full disk costs them alone",
}
_WRITERS = {"write_text", "write_bytes", "savefig", "imwrite", "tofile", "dump"}


def _writing_functions(file: Path) -> Iterator[str]:
    """Functions that write files by themselves, without a temporary one of ours."""
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        called = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls}
        if called & {"replacing", "replacing_together", "scratch_folder"}:
            continue
        opened = [call for call in calls if getattr(call.func, "attr", "") in ("open", "fdopen")]
        modes = [
            str(node.value)
            for call in opened
            for node in call.args
            if isinstance(node, ast.Constant)
        ]
        # A module's own function of that name is not a method of a path.
        own = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
        if own & _WRITERS or any(set(mode) & set("wax+") for mode in modes if len(mode) <= 3):
            yield f"{file.stem}.{function.name}"


def test_every_write_of_the_program_goes_through_these_helpers() -> None:
    package = Path(__file__).parents[2] / "yolox"
    found = {name for file in package.rglob("*.py") for name in _writing_functions(file)}
    found -= {"files.write_bytes", "files.write_text"}
    assert found == set(_OWN_WAY)
