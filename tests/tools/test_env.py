"""What `yolox env` tells of the machine, also where what it looks at is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import yolox
from tests.runs import command, environment
from yolox.tools import env
from yolox.utils.cores import cores, processor
from yolox.utils.environment import environment_text

BROKEN = "raise OSError('libcudart.so.12: cannot open shared object file\\nand more')\n"


def rows(text: str) -> dict[str, str]:
    """Values by name; a block's title has none."""
    pairs = (line.strip().partition("  ") for line in text.splitlines() if line)
    return {name: value.strip() for name, _, value in pairs}


def test_versions_and_machine_are_those_of_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert command(env.main) == 0
    said = rows(capsys.readouterr().out)
    assert said["yolox-with-pruning"].startswith(yolox.__version__)
    assert said["torch"].startswith(torch.__version__)
    assert said["numpy"] == np.__version__
    assert said["Python"].startswith(platform.python_version())
    assert said["processor"] == f"{processor()}, {platform.machine()}"
    assert said["cores"] == f"{cores()} of {os.cpu_count()}"
    assert said["devices"].startswith("CPU")
    assert ("CUDA 0" in said["devices"]) == torch.cuda.is_available()
    threads = f"PyTorch {torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}"
    assert said["threads"].startswith(f"{threads}, OMP_NUM_THREADS=3")


def test_runtimes_are_told_with_their_providers() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    told = rows(environment_text())["onnxruntime"]
    assert told == " ".join([f"{onnxruntime.__version__},", *onnxruntime.get_available_providers()])


def test_extras_tell_what_is_missing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "torch>=2.6",
        'numpy>=1; extra == "web"',
        'no-such-package>=1; extra == "export"',
        'numpy; python_version >= "3.10" and extra == "export"',
        'yolox-with-pruning[export]; extra == "dev"',
        'pytest>=8; extra == "dev"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    said = rows(environment_text())
    assert (said["web"], said["dev"]) == ("installed", "installed")
    assert said["export"] == "without no-such-package"


def test_a_package_that_does_not_import_is_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    for name in ("torch", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text(BROKEN, encoding="utf-8")
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "yolox.tools.door", "env"],
        env=variables, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = rows(done.stdout)
    why = "does not import: libcudart.so.12: cannot open shared object file"
    assert said["torch"] == f"{importlib.metadata.version('torch')}, {why}"
    assert said["devices"] == f"unknown, since torch {why}"
    assert said["threads"].startswith("OpenCV ")
    assert said["numpy"] == np.__version__


def test_it_tells_no_paths_and_no_names_of_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(env.main) == 0
    text = capsys.readouterr().out
    told = [str(Path.home()), platform.node(), sys.prefix, str(Path(yolox.__file__).parent)]
    assert not [word for word in told if word and word in text]
