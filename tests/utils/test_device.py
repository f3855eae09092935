from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from yolox.utils import device as devices
from yolox.utils.device import (
    CPU,
    half_precision,
    machine,
    milliseconds,
    peak_memory,
    resolve_device,
    resolve_precision,
    usable_memory,
)
from yolox.utils.errors import UserError

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update it."


@pytest.fixture(autouse=True)
def _told_anew() -> Iterator[None]:
    devices.warn_of_unusable.cache_clear()
    yield
    devices.warn_of_unusable.cache_clear()


def _machine(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, failure: str = ""
) -> None:
    """A machine with devices of a kind, or with none and what its driver says of that."""
    built = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: built)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    def init() -> None:
        if failure:
            raise RuntimeError(failure)

    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", "cuda"), ("gpu", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_device_by_its_name(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, "cuda", 2)
    assert resolve_device(name) == torch.device(expected)


def test_auto_is_the_cpu_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, None, 0)
    assert resolve_device() == CPU
    _machine(monkeypatch, "mps", 1)
    assert resolve_device() == torch.device("mps")


@pytest.mark.parametrize(
    ("kind", "count", "failure", "name", "words"),
    [
        ("cuda", 2, "", "cuda:2", "this machine has cuda:0, cuda:1"),
        ("cuda", 2, "", "mps", "is built without mps"),
        ("cuda", 2, "", "tpu", "expected one of auto, cpu, gpu, cuda"),
        ("cuda", 2, "", "2", "(`devices` is the number of processes)"),
        ("cuda", 0, "Found no NVIDIA driver on your system.", "cuda", "finds no cuda device here"),
        ("cuda", 0, OLD_DRIVER, "gpu", "too old (found version 11040)"),
        (None, 0, "", "gpu", "is built without cuda, docs/install.md"),
        (None, 0, "", "xpu", "is built without xpu"),
    ],
)
def test_a_device_that_is_not_there(
    kind: str | None, count: int, failure: str, name: str, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _machine(monkeypatch, kind, count, failure)
    with pytest.raises(UserError) as caught:
        resolve_device(name)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"`device='{name}'`: ")


def test_a_driver_that_is_too_old_is_told_once_and_the_cpu_computes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(devices.logger, "warning", said.append)
    _machine(monkeypatch, "cuda", 0, OLD_DRIVER)
    assert [resolve_device(), resolve_device("auto")] == [CPU, CPU]
    assert len(said) == 1
    assert "too old (found version 11040)" in said[0]


def test_no_word_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(devices.logger, "warning", said.append)
    _machine(monkeypatch, "cuda", 0, "Found no NVIDIA driver on your system. Please check.")
    assert resolve_device() == CPU
    assert not said


def test_precisions_that_a_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="`precision='fp16'` needs a GPU"):
        resolve_precision("fp16", CPU)
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: kind != "xpu")
    with pytest.raises(UserError, match="`precision='fp16'` is none that xpu has"):
        resolve_precision("fp16", torch.device("xpu"))
    assert half_precision(CPU) == "bf16"
    assert half_precision(torch.device("xpu")) == "fp16"


def test_time_and_memory_of_the_cpu() -> None:
    calls: list[int] = []
    assert milliseconds(lambda: calls.append(1), CPU, repeats=3) >= 0
    assert len(calls) == 3
    assert peak_memory(CPU) is usable_memory(CPU) is None
    assert machine().count("PyTorch") == 1
