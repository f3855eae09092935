"""What a machine does to a run: full disks, vanished files, killed workers, signals."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from tests.runs import command, error_lines, read, write_exp
from yolox.core import Trainer
from yolox.tools import train
from yolox.utils import checkpoint

Before = Callable[[int, Callable[[], None]], None]


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Before:
    """Do something before a step of the trainer, counted from 1; an epoch has three."""
    step, actions, count = Trainer.train_step, dict[int, Callable[[], None]](), 0

    def counted(trainer: Trainer, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count in actions:
            actions[count]()
        return step(trainer, *args)

    monkeypatch.setattr(Trainer, "train_step", counted)
    return actions.__setitem__


@pytest.fixture
def own_data(devkit: Path, tmp_path: Path) -> Path:
    """A copy of the data and an Exp file on it; returns the folder of the images."""
    copy = shutil.copytree(devkit, tmp_path / "devkit")
    write_exp(tmp_path / "exp.py", copy, tmp_path / "out")
    return copy / "VOC2007" / "JPEGImages"


def _train(folder: Path, *args: object) -> int:
    return command(train.main, "--precision", "fp32", "-f", folder / "exp.py", *args)


def _saved_epoch(folder: Path) -> int:
    epoch: int = read(folder / "out" / "tiny" / "latest_ckpt.pth")["train"]["epoch"]
    return epoch


def _only_error(capsys: pytest.CaptureFixture[str]) -> str:
    log = capsys.readouterr().err
    assert "Traceback" not in log
    (error,) = error_lines(log)
    return error


# ------------------------------------------------------------------------------------ data


@pytest.mark.parametrize(("workers", "kind"), [(0, "vanished"), (2, "vanished"), (0, "corrupt")])
def test_an_image_lost_on_the_way_is_named(
    own_data: Path,
    tmp_path: Path,
    before_step: Before,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    kind: str,
) -> None:
    def spoil() -> None:
        for image in own_data.glob("*.jpg"):
            if kind == "vanished":
                image.unlink()
            else:
                image.write_bytes(image.read_bytes()[:20])

    before_step(4, spoil)  # the first of the second epoch
    status = _train(tmp_path, "max_epoch", 3, "eval_interval", 9, "data_num_workers", workers)
    assert status == 1
    error = _only_error(capsys)
    words = "cannot be read (No such file" if kind == "vanished" else "cannot be decoded (20 bytes)"
    assert words in error
    assert re.search(rf"{re.escape(str(own_data))}/demo_\d+\.jpg", error)
    # Workers may have made the second epoch's batches by then.
    assert _saved_epoch(tmp_path) in ((1, 2) if workers else (1,))


def test_a_killed_worker_is_told_in_a_line(
    own_exp: Path, tmp_path: Path, before_step: Before, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        pid = multiprocessing.active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    before_step(5, kill)
    assert _train(tmp_path, "max_epoch", 30, "eval_interval", 99, "data_num_workers", 2) == 1
    error = _only_error(capsys)
    assert "a process that loads images was killed" in error
    assert "data_num_workers" in error
    assert "--shm-size" in error


# ------------------------------------------------------------------------------------ disk


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    own_exp: Path,
    tmp_path: Path,
    before_step: Before,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fsync = os.fsync
    before_step(4, lambda: monkeypatch.setattr(os, "fsync", _full))
    before_step(10, lambda: monkeypatch.setattr(os, "fsync", fsync))
    assert _train(tmp_path, "max_epoch", 4, "eval_interval", 9) == 0
    log = capsys.readouterr().err
    warnings = [line for line in log.splitlines() if " WARNING " in line]
    assert len(warnings) == 2
    assert "epoch 2 is not saved" in warnings[0]
    assert "latest_ckpt.pth (No space left on device)" in warnings[0]
    assert re.search(r"it takes \d\.\d MiB, \d+\.\d MiB are free there", warnings[0])
    assert "earlier latest_ckpt.pth is whole" in warnings[0]
    assert _saved_epoch(tmp_path) == 4


def test_a_disk_that_stays_full_ends_the_run(
    own_exp: Path,
    tmp_path: Path,
    before_step: Before,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real refusal by the system, from within the writer of torch."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before_step(4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1])))
    try:
        assert _train(tmp_path, "max_epoch", 30, "eval_interval", 99) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    error = _only_error(capsys)
    assert "epoch 4 could not be saved" in error  # the third in a row
    assert "(File too large)" in error
    latest = tmp_path / "out" / "tiny" / "latest_ckpt.pth"
    assert f"-c {latest} --resume continues from epoch 2" in error
    assert _saved_epoch(tmp_path) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_last_epoch_that_cannot_be_saved_is_an_error(
    own_exp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    assert _train(tmp_path, "max_epoch", 1) == 1
    error = _only_error(capsys)
    assert "epoch 1 could not be saved" in error
    assert "no checkpoint of this run to resume from yet" in error


def test_best_that_could_not_be_saved_is_not_the_best(
    own_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worse one that comes later would not be kept either."""
    figures = iter([(0.2, 0.3, ""), (0.6, 0.7, ""), (0.4, 0.5, "")])
    save = checkpoint.torch.save
    writes = 0

    def second_fails(content: Any, file: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:  # best and latest of epoch 1, then the best of epoch 2
            _full()
        save(content, file)

    monkeypatch.setattr(torch, "save", second_fails)
    init = Trainer.__init__

    def with_figures(self: Trainer, **kwargs: Any) -> None:
        init(self, **{**kwargs, "evaluate": lambda _: next(figures)})

    monkeypatch.setattr(Trainer, "__init__", with_figures)
    assert _train(tmp_path, "max_epoch", 3, "eval_interval", 1) == 0
    latest = read(tmp_path / "out" / "tiny" / "latest_ckpt.pth")
    assert latest["train"]["best"] == [0.4, 0.5]
    best = read(tmp_path / "out" / "tiny" / "best_ckpt.pth")
    name = "backbone.backbone.stem.conv.conv.weight"
    assert torch.equal(best["model"][name], latest["model"][name])


@pytest.mark.parametrize("folder", ["/proc/nowhere", "a_file"])
def test_a_folder_that_takes_no_files_is_found_before_training(
    own_exp: Path,
    tmp_path: Path,
    before_step: Before,
    capsys: pytest.CaptureFixture[str],
    folder: str,
) -> None:
    def started() -> None:
        raise AssertionError("training has started")

    before_step(1, started)
    (tmp_path / "a_file").touch()
    assert _train(tmp_path, "output_dir", tmp_path / folder) == 1
    assert f"cannot write into {tmp_path / folder}" in _only_error(capsys)


def test_curves_that_cannot_be_written_do_not_stop_the_run(
    own_exp: Path,
    tmp_path: Path,
    before_step: Before,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before_step(2, lambda: monkeypatch.setattr(RecordWriter, "write", _full))
    assert _train(tmp_path) == 0
    log = capsys.readouterr().err
    (warning,) = [line for line in log.splitlines() if " WARNING " in line]
    assert "no more TensorBoard curves" in warning
    assert "No space left on device" in warning
    assert _saved_epoch(tmp_path) == 2


def test_a_log_file_that_cannot_be_written_does_not_stop_the_run(
    own_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "out" / "tiny" / "train_log.txt"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    assert _train(tmp_path) == 0
    text = capsys.readouterr().err
    assert "Logging error" not in text
    assert "training done" in text


# --------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("number", "workers", "status"),
    [(signal.SIGINT, 0, 130), (signal.SIGTERM, 0, 143), (signal.SIGINT, 2, 130)],
)
def test_signals_end_a_run_with_a_hint(
    own_exp: Path,
    tmp_path: Path,
    before_step: Before,
    capsys: pytest.CaptureFixture[str],
    number: int,
    workers: int,
    status: int,
) -> None:
    handler = signal.getsignal(number)
    before_step(8, lambda: os.kill(os.getpid(), number))
    args = ("max_epoch", 9, "eval_interval", 99, "data_num_workers", workers)
    assert _train(tmp_path, *args) == status
    error = _only_error(capsys)
    latest = tmp_path / "out" / "tiny" / "latest_ckpt.pth"
    assert error.endswith(
        f"stopped in epoch 3 of 9: -c {latest} --resume continues in epoch 3 after iteration 2 of 3"
    )
    assert signal.getsignal(number) == handler
    assert _saved_epoch(tmp_path) == 2
    assert multiprocessing.active_children() == []


def test_a_signal_before_the_first_checkpoint_says_so(
    own_exp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate = Trainer.finish_epoch

    def stopped(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args)

    monkeypatch.setattr(Trainer, "finish_epoch", stopped)
    assert _train(tmp_path) == 143
    error = _only_error(capsys)
    assert "stopped in epoch 1 of 2: there is no checkpoint of this run" in error
