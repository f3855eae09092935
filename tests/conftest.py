"""What runs of the whole program share: a tiny data set, a recipe, a trained and a pruned model."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.exporting import kept_graphs, one_thread
from tests.runs import command, write_exp
from yolox.data import generate_demo_dataset
from yolox.jobs.measure import MeasureSettings
from yolox.jobs.sensitivity import SensitivitySettings
from yolox.tools import prunmodel, train


def crash_logs(controller: int) -> Path:
    """Where the workers of a test run, told by its process, write what they crashed in."""
    return Path(tempfile.gettempdir()) / f"yolox_tests_{controller}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ctrl-C is heard, and what a native crash of a worker prints is kept.

    A shell starts what runs in its background deaf to the one, and the other goes to standard
    error, which is captured.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = getattr(session.config, "workerinput", {}).get("workerid")
    if worker is not None:
        folder = crash_logs(os.getppid())
        folder.mkdir(exist_ok=True)
        session.config.crash_log = (folder / worker).open("w")  # type: ignore[attr-defined]
        faulthandler.enable(file=session.config.crash_log)  # type: ignore[attr-defined]


def pytest_collection_finish() -> None:
    """What is imported stays: looking through it for garbage again and again takes a while."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show where workers crashed."""
    folder = crash_logs(os.getpid())
    for log in sorted(folder.glob("*")):
        if text := log.read_text(errors="replace"):
            terminalreporter.section(f"worker {log.name} crashed")
            terminalreporter.write_line(text)
        log.unlink()
    if folder.is_dir():
        folder.rmdir()


@pytest.fixture(autouse=True, scope="session")
def brief_timing() -> Iterator[None]:
    """Before and after are timed in three runs: no test looks at how long a model takes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("prune_run", "quantize"):
            patch.setattr(f"yolox.jobs.{module}.LATENCY_SECONDS", 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def brief_exports() -> Iterator[None]:
    """A model is converted to ONNX once, however many tests export it."""
    with kept_graphs(), one_thread():
        yield


@pytest.fixture(scope="session")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images: 9 of trainval, 3 of test. Not to be written to."""
    folder = tmp_path_factory.mktemp("data")
    return generate_demo_dataset(folder, num_images=12, image_size=(96, 96))


@pytest.fixture(scope="session")
def tiny_exp(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Exp file on the tiny data; override output_dir to write elsewhere than `trained` does."""
    folder = tmp_path_factory.mktemp("exp")
    return write_exp(folder / "tiny_exp.py", devkit, folder / "out")


@pytest.fixture(scope="session")
def trained(tiny_exp: Path) -> Path:
    """The folder of a run of two epochs. Not to be written to."""
    assert command(train.main, "-f", tiny_exp, "--precision", "fp32") == 0
    return tiny_exp.parent / "out" / "tiny"


@pytest.fixture(scope="session")
def pruned(tiny_exp: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with 40 % of its channels pruned."""
    output = tmp_path_factory.mktemp("pruned") / "pruned.pth"
    status = command(
        prunmodel.main, "--importance", "l1", "-c", trained / "best_ckpt.pth", "-o", output,
        "-f", tiny_exp,
    )  # fmt: skip
    assert status == 0
    return output


@pytest.fixture
def own_exp(devkit: Path, tmp_path: Path) -> Path:
    """A fresh Exp file on the tiny data that writes to ``tmp_path/out``."""
    return write_exp(tmp_path / "exp.py", devkit, tmp_path / "out")


@pytest.fixture
def brief_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longest is measured at one ratio, and timed in few runs without memory.

    That stages measure as their commands do by default is
    `test_compress_stages_do_what_their_lines_do`.
    """
    short = {
        "MeasureSettings": partial(MeasureSettings, runs=3, warmup=0, memory=False),
        "SensitivitySettings": partial(SensitivitySettings, ratios=(0.3,)),
    }
    for name, settings in short.items():
        monkeypatch.setattr(f"yolox.jobs.compress.stages.{name}", settings)
