"""Several processes: the numbers of one process, one voice, and none left when one dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.e2e.forks import Forked, at_step, free_port, two_ranks
from tests.runs import REPO, differences, environment, error_lines, read, write_exp
from yolox.core import Trainer
from yolox.data.errors import DataError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="is about processes on the CPU"),
]

# Statistics of each process's own images would differ; a rate at which a wrong divisor shows.
FROZEN_NORMS = """
        self.basic_lr_per_img = 0.02

    def get_model(self):
        model = super().get_model()
        for module in model.modules():
            if "BatchNorm" in type(module).__name__:
                module.eval()
        return model
"""


def _losses(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [event.value for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.endswith("_loss")
    }


@pytest.mark.parametrize(("accumulate", "taught"), [(1, False), (2, False), (2, True)])
def test_two_processes_compute_what_one_does(
    devkit: Path, trained: Path, pruned: Path, tmp_path: Path, accumulate: int, taught: bool
) -> None:
    """A taught run trains the adapters of the feature maps besides."""
    flags = ("-c", pruned, "--distill", trained / "best_ckpt.pth") if taught else ()
    folders = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        exp = write_exp(folder / "exp.py", devkit, folder / "out", FROZEN_NORMS)
        args = ("-f", exp, *flags, "accumulate", accumulate, "basic_lr_per_img", 0.02)
        if name == "one":
            ends = [Forked(folder / "log", "--precision", "fp32", *args).finish()]
        else:
            ends = two_ranks(folder, *args)
        assert [status for status, _ in ends] == [0] * len(ends), ends
        folders.append(folder / "out" / ("tiny_finetune" if taught else "tiny"))
    losses = [_losses(folder) for folder in folders]
    assert losses[0].keys() == losses[1].keys()
    assert len(losses[0]["train/total_loss"]) == 6
    for name, values in losses[0].items():
        assert losses[1][name] == pytest.approx(values, rel=1e-5, abs=1e-5), name
    one, two = (read(folder / "latest_ckpt.pth") for folder in folders)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-5, atol=1e-5, msg=name)
    assert ("objective" in one["train"]) == taught
    for part in ("raw_model", "objective") if taught else ("raw_model",):
        for name, value in one["train"][part].items():
            torch.testing.assert_close(
                two["train"][part][name], value, rtol=1e-5, atol=1e-5, msg=name
            )


def _record(file: Path) -> None:
    """Leave the best figures and the average's weights of a finished training."""
    train = Trainer.train

    def recorded(trainer: Trainer) -> Any:
        best = train(trainer)
        assert trainer.ema is not None
        state = {**trainer.ema.ema.state_dict(), **trainer.model.state_dict(prefix="model.")}
        torch.save({"best": (best.ap50_95, best.ap50), "state": state}, file)
        return best

    Trainer.train = recorded  # type: ignore[method-assign]


def test_processes_end_with_the_same_model_and_figures(devkit: Path, tmp_path: Path) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")
    files = [tmp_path / f"rank{rank}.pth" for rank in (0, 1)]
    ends = two_ranks(tmp_path, "-f", exp, before=[partial(_record, file) for file in files])
    assert [status for status, _ in ends] == [0, 0], ends
    one, other = map(read, files)
    assert one["best"] == other["best"]
    assert any("running_var" in name for name in one["state"])
    for name, value in one["state"].items():
        assert torch.equal(other["state"][name], value), name
    assert ends[1][1] == ""  # one voice
    assert sorted(path.name for path in (tmp_path / "out" / "tiny").iterdir()) == [
        "best_ckpt.pth", "latest_ckpt.pth", "tensorboard", "train_log.txt",
    ]  # fmt: skip


def _diverge(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.head.obj_preds[0].bias.fill_(float("nan"))


def _lose_an_image(trainer: Trainer) -> None:
    raise DataError("image a.jpg cannot be read (No such file or directory): is it there?")


def _die(trainer: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("action", "words"), [(_diverge, "the loss is not finite"), (_lose_an_image, "a.jpg cannot be")]
)
def test_what_stops_one_process_stops_all_with_its_message(
    devkit: Path, tmp_path: Path, action: Any, words: str
) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")
    before = [None, partial(at_step, 5, action)]
    (status0, log0), (status1, log1) = two_ranks(tmp_path, "-f", exp, before=before)
    assert (status0, status1) == (1, 1)
    (error,) = error_lines(log0 + log1)
    assert words in error
    assert error in log1
    assert "another process of the run ended" in log0 or action is _diverge
    assert "Traceback" not in log0 + log1
    assert read(tmp_path / "out" / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other(devkit: Path, tmp_path: Path, victim: int) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")
    before = [None, None]
    before[victim] = partial(at_step, 2, _die)  # type: ignore[call-overload]
    ends = two_ranks(tmp_path, "-f", exp, before=before)
    assert ends[victim][0] == -signal.SIGKILL
    status, log = ends[1 - victim]
    assert status == 1
    assert "Traceback" not in log


def test_two_processes_resume_to_the_same_bits(devkit: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("straight", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        exp = write_exp(folder / "exp.py", devkit, folder / "out")
        more: list[str] = []
        if name == "killed":
            dies = partial(at_step, 5, _die)  # in the second epoch
            ends = two_ranks(folder, "-f", exp, before=[dies, dies])
            assert [status for status, _ in ends] == [-signal.SIGKILL] * 2
            more = ["--resume"]
        ends = two_ranks(folder, *more, "-f", exp)
        assert [status for status, _ in ends] == [0, 0], ends
        contents.append(read(folder / "out" / "tiny" / "latest_ckpt.pth"))
    assert differences(*contents) == []


def test_two_machines_meet_by_the_flags(devkit: Path, tmp_path: Path) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")
    url = f"tcp://127.0.0.1:{free_port()}"
    machines = [
        Forked(
            tmp_path / f"{rank}.log", "--num_machines", 2, "--machine_rank", rank, "--dist-url",
            url, "--precision", "fp32", "-f", exp,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    ends = [machine.finish() for machine in machines]
    assert [status for status, _ in ends] == [0, 0], ends
    assert "2 × cpu" in ends[0][1]
    assert read(tmp_path / "out" / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 2


def test_torchrun_starts_the_ranks_of_a_training(devkit: Path, tmp_path: Path) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            f"--master_port={free_port()}",
            str(REPO / "tools" / "train.py"),
            "--precision",
            "fp32",
            "-f",
            str(exp),
            "max_epoch",
            "1",
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 × cpu") == 1
    assert not error_lines(done.stderr)
    assert read(tmp_path / "out" / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 1


NOTED = """
    def get_trainer(self, args):
        import os

        trainer = super().get_trainer(args)
        with open(f"pid{os.environ['LOCAL_RANK']}", "w") as file:
            file.write(str(os.getpid()))
        return trainer
"""


@pytest.mark.parametrize("how", ["rank 1", "SIGINT"])
def test_command_with_two_processes_leaves_none(devkit: Path, tmp_path: Path, how: str) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out", NOTED)
    line = [sys.executable, REPO / "tools" / "train.py", "-d", 2, "--precision", "fp32", "-f", exp]
    process = subprocess.Popen(
        [*map(str, line), "max_epoch", "500", "eval_interval", "500"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    latest = tmp_path / "out" / "tiny" / "latest_ckpt.pth"
    while not latest.exists() and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
    try:
        assert process.poll() is None
        pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in (0, 1)]
        if how == "SIGINT":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(pids[int(how[-1])], signal.SIGKILL)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()  # what it started then ends by itself
    assert "Traceback" not in log
    last = error_lines(log)[-1]
    if how == "SIGINT":
        assert process.returncode == 130
        assert "stopped in epoch " in last
        assert re.search(r"--resume continues (from|in) epoch \d+", last)
        assert len(error_lines(log)) == 1
    else:
        assert process.returncode == 1
        assert f"process {how[-1]} of 2 was ended by SIGKILL" in last
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    read(latest)
