from __future__ import annotations

from typing import Any

import pytest
import torch

from yolox.bench.layers import time_onnxruntime_on
from yolox.export.place import open_session, place_of, providers_of
from yolox.export.settings import ExportError
from yolox.utils.conv_kind import ConvKind
from yolox.utils.device import CPU
from yolox.utils.errors import UserError

onnxruntime = pytest.importorskip("onnxruntime")
CUDA = torch.device("cuda:1")
BOTH = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def _providers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_a_runtime_takes_the_accelerator_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    _providers(monkeypatch, *BOTH)
    assert place_of("onnxruntime") == torch.device("cuda")
    assert place_of("onnxruntime", "cpu") == CPU
    assert place_of("onnxruntime", "cuda:1") == CUDA
    assert place_of("tensorrt", "gpu") == torch.device("cuda")
    assert [place_of(name) for name in ("openvino", "ncnn", "torch")] == [CPU] * 3
    _providers(monkeypatch, "CPUExecutionProvider")
    assert place_of("onnxruntime") == CPU


@pytest.mark.parametrize(
    ("runtime", "device", "words"),
    [
        ("onnxruntime", "cuda", "needs onnxruntime's CUDAExecutionProvider"),
        ("tensorrt", "auto", "needs onnxruntime's TensorrtExecutionProvider"),
        ("onnxruntime", "mps", "on a GPU of NVIDIA, not on mps"),
        ("tensorrt", "cpu", "on a GPU of NVIDIA, not on cpu"),
        ("openvino", "cuda", "openvino runs on the CPU here"),
        ("torch", "gpu", "a TorchScript file runs on the CPU here"),
    ],
)
def test_a_runtime_that_cannot(
    runtime: str, device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _providers(monkeypatch, "CPUExecutionProvider")
    with pytest.raises(ExportError, match=words):
        place_of(runtime, device)


def test_a_device_that_nothing_knows() -> None:
    for runtime in ("onnxruntime", "ncnn"):
        with pytest.raises(UserError, match="expected one of auto, cpu, gpu"):
            place_of(runtime, "abacus")


def test_providers_in_the_order_of_choice() -> None:
    assert providers_of("onnxruntime", CPU) == ["CPUExecutionProvider"]
    cuda = ("CUDAExecutionProvider", {"device_id": 1})
    assert providers_of("onnxruntime", CUDA) == [cuda, "CPUExecutionProvider"]
    tensorrt = ("TensorrtExecutionProvider", {"device_id": 1})
    assert providers_of("tensorrt", CUDA) == [tensorrt, cuda, "CPUExecutionProvider"]


def test_a_provider_that_is_listed_and_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, model: object, options: object, *, providers: Any) -> None:
            self.asked = providers

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]  # what onnxruntime falls back to, without a word

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(ExportError, match="has CUDAExecutionProvider and cannot load it"):
        open_session(b"", None, "onnxruntime", CUDA)
    assert open_session(b"", None, "onnxruntime", CPU).asked == ["CPUExecutionProvider"]


def test_layers_of_a_session_each_are_timed_less_one_that_does_nothing() -> None:
    pytest.importorskip("onnx")
    kind = ConvKind(
        kernel=(3, 3), stride=(1, 1), padding=(1, 1), depthwise=False, size=(16, 16), act="silu"
    )
    times = time_onnxruntime_on(kind, [(4, 8), (64, 128)], 1, place=CPU)
    assert len(times) == 2
    assert 0 < times[0] < times[1]
