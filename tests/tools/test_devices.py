"""A device or a precision that is not there: one line, before data or files are looked at."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.runs import command, error_lines, tree
from yolox.tools import bench, eval, prunmodel, quickstart, train

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update it."
NOWHERE = ("-n", "yolox-nano", "data_dir", "nowhere")


def refused(
    tool: ModuleType, words: tuple[object, ...], folder: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> str:  # fmt: skip
    """The one line of a command that leaves nothing in an empty folder."""
    monkeypatch.chdir(folder)
    assert command(tool.main, *words) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert tree(folder) == {}
    return line


@pytest.mark.parametrize("more", [(), ("-d", 2)])
def test_fp16_on_a_cpu(
    more: tuple[object, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--precision", "fp16", "--device", "cpu", *more, *NOWHERE)
    line = refused(train, words, tmp_path, monkeypatch, capsys)
    assert "--precision fp16 needs a GPU: use bf16 or auto on a CPU" in line


@pytest.mark.parametrize("tool", [train, eval, prunmodel, bench, quickstart])
@pytest.mark.parametrize(
    ("driver", "device", "told"),
    [
        ("", "nonsense", "--device nonsense: expected one of auto, cpu, gpu"),
        ("Found no NVIDIA driver on your system.", "cuda", "finds no cuda device here"),
        (OLD_DRIVER, "cuda", "its driver cannot be used (The NVIDIA driver on your system is too"),
    ],
)
def test_a_device_that_is_not_there(
    tool: ModuleType, driver: str, device: str, told: str, trained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def init() -> None:
        raise RuntimeError(driver)

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "init", init)
    checkpoint = trained / "best_ckpt.pth"
    words: dict[ModuleType, tuple[object, ...]] = {
        bench: (checkpoint,),
        prunmodel: ("-c", checkpoint, "--mode", "global", *NOWHERE),
        quickstart: (),
    }
    found = words.get(tool, NOWHERE)
    line = refused(tool, ("--device", device, *found), tmp_path, monkeypatch, capsys)
    assert told in line


def test_a_runtime_without_the_provider_asked_for(
    trained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    words = (trained / "best_ckpt.pth", "--runtimes", "onnxruntime", "--device", "cuda")
    line = refused(bench, words, tmp_path, monkeypatch, capsys)
    assert "needs onnxruntime's CUDAExecutionProvider" in line
    assert "here has CPUExecutionProvider: install onnxruntime-gpu" in line
