"""Exported files in their runtimes, whoever has written them: sessions that run arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from yolox.export.exported_model import Array
from yolox.export.openvino import METADATA_SECTION
from yolox.export.runtimes import OPENVINO_PRECISIONS
from yolox.export.settings import ExportError, optional_packages


@dataclass(frozen=True, kw_only=True)
class Session:
    """A file in a runtime.

    Attributes:
        run: images float32 (B, 3, H, W) → the file's one output.
        metadata: what the runtime tells that the file says of itself.
        shapes: of input and output as far as the runtime tells them, None for any number.
    """

    run: Callable[[Array], Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[Sequence[int | None], Sequence[int | None]] | None = None


def onnxruntime_options(threads: int | None) -> Any:
    """``SessionOptions`` with so many threads, or the runtime's own choice."""
    (onnxruntime,) = optional_packages("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Its threads otherwise spin for up to a second after a run, on cores that others want by then:
    # of several sessions in turns each then takes two to five times as long as alone.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads:
        options.intra_op_num_threads = threads
    return options


def openvino_arithmetic(precision: str) -> str:
    """What OpenVINO computes in here, f32 or bf16, when asked for one of `OPENVINO_PRECISIONS`.

    Raises:
        ExportError: it is none of them, or OpenVINO is not installed.
    """
    (openvino,) = optional_packages("openvino")
    if precision not in OPENVINO_PRECISIONS:
        raise ExportError(
            f"OpenVINO's precision must be one of {', '.join(OPENVINO_PRECISIONS)}: {precision}"
        )
    if precision != "default":
        return precision
    return str(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())


def openvino_options(threads: int | None, precision: str) -> dict[str, Any]:
    """How a model is compiled: so many threads, or OpenVINO's own choice, and its arithmetic."""
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": openvino_arithmetic(precision),
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def open_onnxruntime(path: Path, threads: int | None) -> Session:
    """An ONNX file in onnxruntime.

    Args:
        path: of the file.
        threads: of a run; the runtime's own choice by default.

    Raises:
        ExportError: onnxruntime is not installed, or the file has several inputs or outputs.
        Exception: whatever onnxruntime raises where it does not take the file.
    """
    (onnxruntime,) = optional_packages("onnxruntime")
    options = onnxruntime_options(threads)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given, made = _only(session.get_inputs(), session.get_outputs(), path)

    def run(x: Array) -> Array:
        (out,) = session.run([made.name], {given.name: x})
        return np.asarray(out, np.float32)

    shapes = [
        [size if isinstance(size, int) else None for size in value.shape] for value in (given, made)
    ]
    facts = session.get_modelmeta().custom_metadata_map
    return Session(metadata=facts, run=run, shapes=(shapes[0], shapes[1]))


def open_openvino(path: Path, threads: int | None, precision: str) -> Session:
    """OpenVINO's file, or an ONNX file, in OpenVINO; see `open_onnxruntime`."""
    options = openvino_options(threads, precision)
    (openvino,) = optional_packages("openvino")
    core = openvino.Core()
    model = core.read_model(path)
    if path.suffix == ".onnx":
        (onnx,) = optional_packages("onnx")
        facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    elif METADATA_SECTION in model.rt_info:
        facts = {key: entry.value for key, entry in model.rt_info[METADATA_SECTION].items()}
    else:
        facts = {}
    given, made = _only(model.inputs, model.outputs, path)
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(x: Array) -> Array:
        return np.asarray(request.infer([x])[0], np.float32)

    shapes = [
        [None if size.is_dynamic else size.get_length() for size in value.partial_shape]
        for value in (given, made)
    ]
    return Session(metadata=facts, run=run, shapes=(shapes[0], shapes[1]))


def open_ncnn(path: Path, threads: int | None, given: str, made: str) -> Session:
    """A ``.param`` file, and the ``.bin`` beside it, in ncnn, one image a run.

    Args:
        path: of the ``.param`` file.
        threads: see `open_onnxruntime`.
        given: name of its input.
        made: name of its output.

    Raises:
        ExportError: ncnn is not installed, or does not take the file.
    """
    (ncnn,) = optional_packages("ncnn")
    net = ncnn.Net()
    # Half-precision storage, its default, costs three digits and gains nothing on an x86.
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise ExportError(f"ncnn {ncnn.__version__} cannot load {path}")

    def run(x: Array) -> Array:
        with net.create_extractor() as extractor:
            # A copy: a Mat of an array does not keep it alive, and the layers may write to it.
            extractor.input(given, ncnn.Mat(x[0]).clone())
            status, out = extractor.extract(made)
            if status:
                raise RuntimeError(f"status {status}")
            return np.array(out, np.float32)[None]

    return Session(run=run)


def open_torchscript(archive: BinaryIO, threads: int | None) -> Session:
    """A TorchScript program, whose code has been read, in PyTorch; see `open_onnxruntime`."""
    module = torch.jit.load(archive, map_location="cpu")  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def run(x: Array) -> Array:
        before = torch.get_num_threads()
        if threads:
            torch.set_num_threads(threads)
        try:
            out: Array = module(torch.from_numpy(x)).numpy()
        finally:
            torch.set_num_threads(before)
        return out

    return Session(run=run)


def _only(inputs: Sequence[Any], outputs: Sequence[Any], path: Path) -> tuple[Any, Any]:
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each: "
            "only files of `yolox.export_model` can be run"
        )
    return inputs[0], outputs[0]
