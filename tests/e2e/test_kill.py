"""Killed at any instant, a run resumes from a whole checkpoint to the bits of a straight one."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.e2e.forks import Forked, at_step
from tests.runs import STEPS, differences, read, write_exp

pytestmark = pytest.mark.slow
EPOCHS = 4
VARIED = "        self.max_epoch, self.multiscale_range, self.ema_decay = 4, 1, 0.99"


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_step(number: int) -> None:
    at_step(number, _die)


def _in_writing(number: int) -> None:
    """Half of a checkpoint is written."""
    save, count = torch.save, 0

    def cut_off(content: Any, file: Any) -> None:
        nonlocal count
        count += 1
        save(content, file)
        if count == number:
            file.flush()
            file.truncate(file.tell() // 2)
            _die()

    torch.save = cut_off  # type: ignore[assignment]


def _around_renaming(number: int, *, after: bool) -> None:
    """A checkpoint is written but has not its name, or has it just got."""
    replace, count = os.replace, 0

    def counted(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count == number and not after:
            _die()
        replace(source, target)
        if count == number:
            _die()

    os.replace = counted  # type: ignore[assignment]


def _instants(seed: int) -> list[Any]:
    """Functions that kill a run, each at an instant that it reaches within two epochs."""
    draw = random.Random(seed)
    return [
        partial(_at_step, draw.randint(2, 2 * STEPS)),
        partial(_in_writing, draw.randint(1, 2)),
        partial(_around_renaming, draw.randint(1, 2), after=draw.random() < 0.5),
    ]


def _content(folder: Path) -> dict[str, Any]:
    """The latest checkpoint, without what starting workers alone moves."""
    content = read(folder / "out" / "tiny" / "latest_ckpt.pth")
    del content["train"]["torch_rng"]
    return content


def _run(folder: Path, *args: object, before: Any = None) -> tuple[int, str]:
    exp = folder / "exp.py"
    return Forked(
        folder / "log", "--precision", "fp32", *args, "-f", exp, before=before
    ).finish()  # fmt: skip


@pytest.fixture(scope="module")
def straight(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    write_exp(folder / "exp.py", devkit, folder / "out", VARIED)
    status, log = _run(folder)
    assert status == 0, log
    return folder


@pytest.mark.parametrize(("seed", "workers"), [(0, 0), (1, 0), (3, 2)])
def test_killed_again_and_again(
    devkit: Path, tmp_path: Path, straight: Path, seed: int, workers: int
) -> None:
    more = f"{VARIED}\n        self.data_num_workers = {workers}"
    write_exp(tmp_path / "exp.py", devkit, tmp_path / "out", more)
    latest = tmp_path / "out" / "tiny" / "latest_ckpt.pth"
    instants = _instants(seed)
    random.Random(seed).shuffle(instants)
    for instant in instants:
        args = ["--resume"] if latest.exists() else []
        status, log = _run(tmp_path, *args, before=instant)
        assert status in (-signal.SIGKILL, 0), log
        for path in latest.parent.glob("*.pth"):
            read(path)
    status, log = _run(tmp_path, *(["--resume"] if latest.exists() else []))
    assert status == 0, log
    assert differences(_content(straight), _content(tmp_path)) == []
    best = [read(folder / "out" / "tiny" / "best_ckpt.pth") for folder in (straight, tmp_path)]
    assert differences(*best) == []
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_killed_write_leaves_a_file_that_the_next_run_removes(
    devkit: Path, tmp_path: Path
) -> None:
    write_exp(tmp_path / "exp.py", devkit, tmp_path / "out", VARIED)
    status, _ = _run(tmp_path, before=partial(_in_writing, 1))
    assert status == -signal.SIGKILL
    folder = tmp_path / "out" / "tiny"
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert not list(folder.glob("*.pth"))
    mine = folder / ".notes.tmp"
    mine.touch()
    status, log = _run(tmp_path, "-b", 4)
    assert status == 0, log
    assert list(folder.glob(".*.tmp")) == [mine]
