"""Processes that are watched: statuses, and that none is left."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from yolox.core import (
    PEER_LOST_STATUS,
    Interrupted,
    PeerLostError,
    ResourceError,
    explain,
    make_fabric,
    outer_launch,
    processes_here,
    report_once,
    stoppable,
    supervise,
)
from yolox.utils.dist import ranks_here
from yolox.utils.errors import UserError

FOR_EVER = "signal.pause()"


def _command(*by_rank: str) -> list[str]:
    """A command that does one of these by its rank; `folder` is the working directory."""
    parts = "\n".join(
        f"if rank == {rank}:\n{textwrap.indent(code, '    ')}" for rank, code in enumerate(by_rank)
    )
    head = "import os, signal, sys\nrank = int(os.environ['LOCAL_RANK'])\n"
    note = "open(f'pid{rank}', 'w').write(str(os.getpid()))\n"
    return [sys.executable, "-c", head + note + parts]


def _all_gone(folder: Path) -> bool:
    for path in folder.glob("pid*"):
        if path.read_text():
            with pytest.raises(ProcessLookupError):
                os.kill(int(path.read_text()), 0)
    return True


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "somewhere.else")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "7")  # of whatever started this process
    says = "open(f'env{rank}', 'w').write(os.environ['MASTER_ADDR'] + os.environ['MASTER_PORT'])"
    says += "; assert os.environ['LOCAL_WORLD_SIZE'] == '2'"
    assert supervise(_command(says, says), 2) == 0
    meetings = [(tmp_path / f"env{rank}").read_text() for rank in (0, 1)]
    assert meetings[0] == meetings[1]
    assert meetings[0].startswith("127.0.0.1")


def test_machines_keep_the_place_that_they_agreed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.7")
    monkeypatch.setenv("MASTER_PORT", "29500")
    says = "open('env', 'w').write(os.environ['MASTER_ADDR'] + ':' + os.environ['MASTER_PORT'])"
    assert supervise(_command(says), 1, machines=2) == 0
    assert (tmp_path / "env").read_text() == "10.0.0.7:29500"


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_the_other_and_gives_the_status(tmp_path: Path, failing: int) -> None:
    codes = [FOR_EVER, FOR_EVER]
    codes[failing] = "sys.exit(5)"
    assert supervise(_command(*codes), 2, grace=0.5) == 5
    assert _all_gone(tmp_path)


def test_the_cause_counts_not_those_who_lost_it(tmp_path: Path) -> None:
    late = "import time; time.sleep(0.5); sys.exit(1)"
    assert supervise(_command(f"sys.exit({PEER_LOST_STATUS})", late), 2, grace=5) == 1


def test_a_cause_on_another_machine_is_said(tmp_path: Path) -> None:
    lost = f"sys.exit({PEER_LOST_STATUS})"
    with pytest.raises(UserError, match="process on another machine was lost"):
        supervise(_command(lost, lost), 2, machines=2)


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    killed = "os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(UserError, match=r"process 1 of 2 was ended by SIGKILL, out of memory"):
        supervise(_command(FOR_EVER, killed), 2, grace=0.2)
    assert _all_gone(tmp_path)


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    """The second process heeds no signal but the one that cannot be ignored."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()"
    parent = os.getpid()
    heard = (
        "def note(*_):\n    open('heard', 'w').close()\n    sys.exit(0)\n"
        f"signal.signal(signal.SIGTERM, note)\nos.kill({parent}, signal.SIGTERM)\nsignal.pause()"
    )
    with pytest.raises(Interrupted) as caught, stoppable():
        supervise(_command(heard, deaf), 2, grace=1)
    assert caught.value.number == signal.SIGTERM
    assert str(caught.value) == ""
    assert (tmp_path / "heard").exists()
    assert _all_gone(tmp_path)


def test_the_second_signal_is_the_system_s() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stoppable():
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.number == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_signals_are_left_alone_in_a_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.slow
def test_orphans_end(tmp_path: Path) -> None:
    """The watching process is killed; what it started notices and ends, closing the pipe."""
    read_end, write_end = os.pipe()
    orphan = (
        "from yolox.core import end_with_parent; end_with_parent()\n"
        f"os.write({write_end}, b'x')\nsignal.pause()"
    )
    watcher = os.fork()
    if watcher == 0:
        os.set_inheritable(write_end, True)
        os.environ["YOLOX_PARENT"] = str(os.getpid())
        os.environ["LOCAL_RANK"] = "0"
        if os.fork() == 0:
            os.execv(sys.executable, _command(orphan))
        signal.pause()
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    os.kill(watcher, signal.SIGKILL)
    os.waitpid(watcher, 0)
    assert os.read(read_end, 1) == b""  # the last holder of the other end is gone
    os.close(read_end)


# ----------------------------------------------------------------------- launchers and errors


def _torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
    values |= {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_torchrun_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    _torchrun(monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert outer_launch() == (2, 3)
    assert ranks_here() == 2
    assert processes_here(None) == processes_here(2) == 2
    fabric = make_fabric(precision="fp32")
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (6, 3, 1)
    with pytest.raises(UserError, match=r"`devices=4`, but torchrun or srun started 2 processes"):
        processes_here(4)


def test_srun_says_how_many_but_a_batch_script_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name, value in {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "4")  # says nothing of this machine
    assert outer_launch() is None
    assert ranks_here() == 1
    assert make_fabric(precision="fp32").world_size == 1
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NODELIST": "a[1-2]",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert outer_launch() == (2, 2)
    assert ranks_here() == 2
    fabric = make_fabric(precision="fp32")
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (4, 3, 1)


def test_without_a_launcher_the_flag_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert outer_launch() is None
    assert [processes_here(None), processes_here(3)] == [1, 3]


def test_an_error_that_all_meet_is_the_first_one_s(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no data") as caught, report_once():
        raise UserError("no data")
    assert not isinstance(caught.value, PeerLostError)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(PeerLostError, match="no data"), report_once():
        raise UserError("no data")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "loads images was killed"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "shared memory"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", r"batch size"),
        ("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed", "out of memory"),
        ("std::bad_alloc", "out of memory"),
        (
            "Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback (most "
            "recent call last):\n  File\nnumpy._core._exceptions._ArrayMemoryError: Unable to "
            "allocate 9. TiB",
            "(numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9. TiB)",
        ),
    ],
)
def test_failures_of_the_machine_are_explained(text: str, words: str) -> None:
    told = explain(RuntimeError(text))
    assert isinstance(told, ResourceError)
    assert words in str(told)
    assert "\n" not in str(told)


def test_memory_that_ran_out_is_told_whoever_asked_for_it() -> None:
    for ask in (lambda: np.zeros(1 << 45), lambda: bytearray(1 << 60)):
        with pytest.raises(MemoryError) as caught:
            ask()
        told = explain(caught.value)
        assert "out of memory: lower the batch size" in str(told)
        assert "\n" not in str(told)


def test_a_batch_norm_of_one_value_is_told() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value") as caught:
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    assert "raise the batch size or input_size" in str(explain(caught.value))


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyError("gloo"), ValueError()])
def test_bugs_are_not_explained_away(error: Exception) -> None:
    assert explain(error) is None


def test_labels_that_a_collate_function_cannot_stack_are_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.utils.data.default_collate([torch.zeros(2, 5), torch.zeros(3, 5)])
    assert "yolox.data.collate_samples" in str(explain(caught.value))
