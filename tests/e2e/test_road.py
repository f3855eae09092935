"""The real command lines, each a process: help, the whole road, a kill, two processes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.e2e.forks import Forked, two_ranks
from tests.runs import (
    REPO,
    TRAIN_IMAGES,
    command,
    differences,
    environment,
    error_lines,
    launch,
    read,
    tree,
    write_exp,
)
from yolox.models import load_model
from yolox.tools import demo, prunmodel, train
from yolox.tools import eval as evaluate

BARE = ("--importance", "l1", "--reconstruct", 0, "--no-latency")
TOOLS = sorted(path.stem for path in (REPO / "tools").glob("*.py"))


@pytest.mark.parametrize("tool", TOOLS)
def test_doors_tell_their_flags_and_defaults(tool: str, tmp_path: Path) -> None:
    done = launch(tool, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    text = " ".join(done.stdout.split())
    assert "example:" in text
    assert "python tools/" in text or "make demo" in text
    flags = re.findall(r"^  (-[^\n]*)", done.stdout, re.MULTILINE)
    assert len(flags) >= (1 if tool == "env" else 2)
    options = text.partition("options:")[2].partition("PATH | key value")[0]
    told = options.count("(default:") + options.count("(required)")
    assert told == len(flags) - 1  # all but -h
    assert tree(tmp_path) == {}


def test_a_mistake_is_refused_in_one_line(own_exp: Path, tmp_path: Path) -> None:
    """By the process itself; which mistakes, in one process, is for the tests of the commands."""
    before = tree(tmp_path)
    done = launch("train", "-f", own_exp, "max_epochs", "3", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (error,) = error_lines(done.stderr)
    assert "did you mean max_epoch" in error
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_whole_road(
    own_exp: Path,
    devkit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pruning and comparing are processes here; training and evaluating are in tests of several."""
    monkeypatch.chdir(tmp_path)
    out, tuned_out = tmp_path / "out" / "tiny", tmp_path / "out" / "tiny_finetune"
    exp = ("-f", own_exp)

    def told(status: int, stdout: str, stderr: str) -> str:
        assert status == 0, stderr
        assert not error_lines(stderr)
        assert "Traceback" not in stderr
        return stdout + stderr

    def ok(tool: str, *args: object) -> str:
        done = launch(tool, *args, cwd=tmp_path)
        return told(done.returncode, done.stdout, done.stderr)

    def here(main: Callable[[Sequence[str] | None], None], *args: object) -> str:
        capsys.readouterr()
        return told(command(main, *args), *capsys.readouterr())

    here(train.main, *exp)
    best = out / "best_ckpt.pth"
    listed = here(prunmodel.main, "--mode", "list", *exp)
    assert "backbone.backbone.dark3.0.conv" in listed
    here(prunmodel.main, "--mode", "save", *exp)
    conv, layer = tmp_path / "conv.pth", tmp_path / "layer.pth"
    one = ("--layers", "head.stems.0.conv", "--ch-sparsity", 0.4, "-c", best, "-o", conv, *BARE)
    here(prunmodel.main, "--mode", "conv", *one, *exp)
    some = ("--layers", "*dark5*", "--ch-sparsity", 0.4, "-c", best, "-o", layer, *BARE)
    here(prunmodel.main, "--mode", "layer", *some, *exp)
    every = ("--mode", "global", "--ch-sparsity", 0.4, "--images", 2, "--reconstruct", 2)
    assert "verified" in ok("prunmodel", *every, *exp)
    pruned = out / "pruned.pth"
    whole = out / "whole_model.pth"
    sizes = [path.stat().st_size for path in (whole, conv, layer, pruned)]
    assert max(sizes) == sizes[0] > sizes[1]
    assert sizes[3] < sizes[0] * 0.8

    log = here(train.main, "-c", pruned, *exp)
    assert "activation silu → mish" in log
    tuned = tuned_out / "latest_ckpt.pth"  # the best one may be the model before the first step
    own_exp.rename(tmp_path / "moved.py")  # a file needs no Exp to be rebuilt
    loaded = load_model(tuned)
    own_exp = (tmp_path / "moved.py").rename(own_exp)
    assert loaded.spec.act == "mish"
    assert loaded.pruning == load_model(pruned).pruning
    assert loaded.content["channels"] == read(pruned)["channels"]

    assert "COCO: AP50-95" in here(evaluate.main, "-c", tuned, *exp)
    table = ok("compare", "-c", best, pruned, tuned, "--labels", "b", "p", "t", "--runs", 2, *exp)
    assert "64×64" in table
    image = devkit / "VOC2007" / "JPEGImages" / "demo_00000.jpg"
    here(demo.main, "-c", tuned, "--path", image, "--save_dir", "drawn", "--conf", 0.0001)
    drawn = cv2.imread(str(tmp_path / "drawn" / image.name)).astype(int)
    assert np.abs(drawn - cv2.imread(str(image))).max() > 100
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bits(devkit: Path, tmp_path: Path) -> None:
    epochs = 12  # so many that the kill comes before the last
    more = f"        self.max_epoch, self.multiscale_range, self.ema_decay = {epochs}, 1, 0.99"
    folders = [tmp_path / "straight", tmp_path / "killed"]
    exps = []
    for folder in folders:
        folder.mkdir()
        exps.append(write_exp(folder / "exp.py", devkit, folder / "out", more))
    common = ("--precision", "fp32", "-f")
    rest = ("eval_interval", 50, "no_aug_epochs", 5)
    status, log = Forked(folders[0] / "log", *common, exps[0], *rest).finish()
    assert status == 0, log

    line = [sys.executable, REPO / "tools" / "train.py", *common, exps[1], *rest]
    latest = folders[1] / "out" / "tiny" / "latest_ckpt.pth"
    process = subprocess.Popen(
        list(map(str, line)), cwd=folders[1], env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not latest.exists() and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = read(latest)["train"]["epoch"]
    assert 0 < done < epochs
    status, log = Forked(folders[1] / "log", "--resume", *common, exps[1], *rest).finish()
    assert status == 0, log
    assert f"resumed after epoch {done} of {epochs}" in log
    one, other = (read(folder / "out" / "tiny" / "latest_ckpt.pth") for folder in folders)
    assert differences(one, other) == []


RECORDER = """
    def get_data_loader(self, *args, **kwargs):
        import json
        from yolox.data import collate_samples
        from yolox.utils import get_rank

        rank = get_rank()
        loader = super().get_data_loader(*args, **kwargs)

        def collate(items):
            with open(f"rank{rank}.jsonl", "a") as file:
                file.write(json.dumps([int(item[3][0]) for item in items]) + "\\n")
            return collate_samples(items)

        loader.collate_fn = collate
        return loader
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about processes on the CPU")
def test_two_processes_see_different_images_and_write_one_checkpoint(
    devkit: Path, tmp_path: Path
) -> None:
    exp = write_exp(tmp_path / "exp.py", devkit, tmp_path / "out", RECORDER)
    done = launch("train", "-d", 2, "--precision", "fp32", "-f", exp, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [
        [json.loads(line) for line in (tmp_path / f"rank{rank}.jsonl").read_text().splitlines()]
        for rank in (0, 1)
    ]
    assert [len(batches) for batches in ranks] == [6, 6]
    for first, second in zip(*ranks, strict=True):
        assert len(first) == len(second) == 2
        assert len({*first, *second}) == 4
    assert {i for batches in ranks for batch in batches[:3] for i in batch} == set(
        range(TRAIN_IMAGES)
    )
    files = {path.name for path in (tmp_path / "out" / "tiny").iterdir()}
    assert files == {"best_ckpt.pth", "latest_ckpt.pth", "train_log.txt", "tensorboard"}
    assert len(list((tmp_path / "out").rglob("events*"))) == 1
    log = (tmp_path / "out" / "tiny" / "train_log.txt").read_text()
    assert log.count("epoch 1/2 iter 3/3") == 1
    assert read(tmp_path / "out" / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 2
    refused = two_ranks(tmp_path, "-b", 3, "-f", exp)
    assert [status for status, _ in refused] == [1, 1]
    assert "batch size 3 does not divide by 2" in refused[0][1]
