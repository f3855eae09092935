"""Where each runtime computes: on the CPU, or on an accelerator that it was installed for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yolox.export.settings import ExportError, optional_packages
from yolox.utils.device import CPU, resolve_device

# What onnxruntime calls that which computes on a GPU of NVIDIA, by our runtimes.
PROVIDERS = {"onnxruntime": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_INSTALL = {
    "onnxruntime": "install onnxruntime-gpu in place of onnxruntime",
    "tensorrt": "install onnxruntime-gpu in place of onnxruntime, and tensorrt",
}

Provider = str | tuple[str, dict[str, Any]]


def place_of(
    runtime: str, device: str | torch.device = "auto", *, file: bool = True
) -> torch.device:
    """The device that a runtime computes on where a person names one.

    Args:
        runtime: one of `yolox.export.runtimes.RUNTIMES`.
        device: as `yolox.utils.device.resolve_device` takes it; ``auto`` is an accelerator where
            the runtime can use it, otherwise the CPU.
        file: whether an exported file is run, or a checkpoint's own model.

    Raises:
        UserError: there is no such device.
        ExportError: the runtime does not compute on it.
    """
    if runtime.startswith("torch") and not file:
        return resolve_device(device)
    if runtime in PROVIDERS:
        return _place_by_provider(runtime, str(device))
    if device != "auto" and _named(str(device)).type != "cpu":
        what = "a TorchScript file" if runtime == "torch" else runtime
        raise ExportError(
            f"{what} runs on the CPU here, not on {device}: leave `device` out, or measure the "
            "checkpoint in PyTorch"
        )
    return CPU


def _named(device: str) -> torch.device:
    """A device by its name; whether PyTorch finds it here does not matter to other runtimes."""
    try:
        return torch.device("cuda" if device == "gpu" else device)
    except (RuntimeError, ValueError):
        return resolve_device(device)  # which says what there is


def _place_by_provider(runtime: str, device: str) -> torch.device:
    (onnxruntime,) = optional_packages("onnxruntime")
    wanted, there = PROVIDERS[runtime], onnxruntime.get_available_providers()
    if runtime == "onnxruntime" and (device == "cpu" or (device == "auto" and wanted not in there)):
        return CPU
    place = _named("cuda" if device == "auto" else device)
    if place.type != "cuda":
        raise ExportError(
            f"{runtime} runs on a GPU of NVIDIA, not on {device}: take `device='cuda'`"
        )
    if wanted not in there:
        raise ExportError(
            f"{runtime} on {device} needs onnxruntime's {wanted}, and onnxruntime "
            f"{onnxruntime.__version__} here has {', '.join(there)}: {_INSTALL[runtime]}, or leave "
            f"{runtime} out"
        )
    return place


def providers_of(runtime: str, place: torch.device) -> list[Provider]:
    """What onnxruntime is to compute by, the first choice first."""
    if place.type == "cpu":
        return ["CPUExecutionProvider"]
    number = {"device_id": place.index or 0}
    chain: list[Provider] = [("CUDAExecutionProvider", number)]
    if runtime == "tensorrt":  # the nodes that it does not take go to CUDA
        chain.insert(0, (PROVIDERS[runtime], number))
    return [*chain, "CPUExecutionProvider"]


def open_session(model: Path | bytes, options: Any, runtime: str, place: torch.device) -> Any:
    """An ``InferenceSession`` that computes where it was asked to.

    Raises:
        ExportError: onnxruntime lists the provider and cannot load it, for which it takes the CPU
            without an error of its own.
    """
    (onnxruntime,) = optional_packages("onnxruntime")
    chain: Sequence[Provider] = providers_of(runtime, place)
    session = onnxruntime.InferenceSession(model, options, providers=chain)
    first = chain[0] if isinstance(chain[0], str) else chain[0][0]
    if session.get_providers()[0] != first:
        raise ExportError(
            f"onnxruntime has {first} and cannot load it, most often since CUDA, cuDNN or TensorRT "
            "is missing in the version that it was built for: install that, or give `device='cpu'`"
        )
    return session
