"""Exported files opened in their own runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from yolox.export.archive import open_archive
from yolox.export.exported_model import Array, ExportedModel
from yolox.export.metadata import ExportInfo
from yolox.export.missing import cause_of, unknown_ops, with_layers
from yolox.export.ncnn import require_layers
from yolox.export.openvino import METADATA_SECTION
from yolox.export.runtimes import OPENVINO_PRECISIONS, runtimes_of
from yolox.export.seal import require_parts, require_sealed
from yolox.export.settings import SUFFIXES, ExportError, optional_packages
from yolox.utils.documents import DocumentError, parse_json
from yolox.utils.errors import UserError

FILE_SUFFIXES = tuple(suffixes[0] for suffixes in SUFFIXES.values())


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A file in a runtime: what it says of itself, shapes as far as the runtime tells them."""

    metadata: Mapping[str, str]
    run: Callable[[Array], Array]
    shapes: tuple[Sequence[int | None], Sequence[int | None]] | None = None


def tell_program(path: Path) -> None:
    """Say of a TorchScript file, before it is used, what kind of file it is."""
    if path.suffix == ".torchscript":
        logger.info(
            f"{path} is a program, as every TorchScript file: its code was read before it was "
            "loaded, and holds nothing but operations on tensors"
        )


def is_exported(path: str | Path) -> bool:
    """Whether a path is named as a file that `open_exported` opens."""
    return Path(path).suffix in FILE_SUFFIXES


def open_exported(
    path: str | Path,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    precision: str = "f32",
) -> ExportedModel:
    """Open a file of `yolox.export`.

    Args:
        path: of the file that the export names; what belongs to it lies beside it.
        threads: of one run; the runtime's own choice by default.
        runtime: one of `RUNTIMES`; by default the one that the file is made for.
        precision: of OpenVINO's arithmetic. ``default`` leaves it to OpenVINO, which takes bf16 on
            some CPUs.

    Raises:
        ExportError: no such file, part of it missing, damaged, of another program, or whose
            metadata and graph disagree; a runtime that is not installed or does not take it.
    """
    path = Path(path)
    if not is_exported(path):
        raise ExportError(f"{path}: expected an exported file, {' or '.join(FILE_SUFFIXES)}")
    require_parts(path)
    able = runtimes_of(path.suffix)
    runtime = runtime or able[0]
    if runtime not in able:
        raise ExportError(f"{runtime} does not run {path}: {' and '.join(able)} can")
    if path.suffix != ".torchscript":  # whose archive is checked as it is read
        require_sealed(path)
    try:
        if runtime == "onnxruntime":
            opened = _open_onnxruntime(path, threads)
        elif runtime == "openvino":
            opened = _open_openvino(path, threads, precision)
        elif runtime == "ncnn":
            opened = _open_ncnn(path, threads)
        else:
            opened = _open_torch(path, threads)
    except UserError:
        raise
    except Exception as error:  # the runtimes' exceptions have no common class
        raise ExportError(f"{runtime} cannot load {path}: {_reason(error, path)}") from error
    info = ExportInfo.from_metadata(opened.metadata, path)
    if SUFFIXES[info.format][0] != path.suffix:
        raise ExportError(f"{path} says of itself that it is for {info.format}: export it again")
    if opened.shapes is not None:
        info.require_shapes(*opened.shapes, path)
    arithmetic = openvino_arithmetic(precision) if runtime == "openvino" else "f32"
    return ExportedModel(path, runtime, info, opened.run, arithmetic=arithmetic)


def _reason(error: Exception, path: Path) -> str:
    """Why a runtime does not take a file: what it lacks, or the first line of what it says."""
    if path.suffix == ".onnx" and (ops := unknown_ops(error)):
        (onnx,) = optional_packages("onnx")
        return f"it lacks {with_layers(ops, onnx.load(path).graph)}"
    return cause_of(error)


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


def _open_onnxruntime(path: Path, threads: int | None) -> _Opened:
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
    return _Opened(metadata=facts, run=run, shapes=(shapes[0], shapes[1]))


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


def _open_openvino(path: Path, threads: int | None, precision: str) -> _Opened:
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
    return _Opened(metadata=facts, run=run, shapes=(shapes[0], shapes[1]))


def _open_ncnn(path: Path, threads: int | None) -> _Opened:
    (ncnn,) = optional_packages("ncnn")
    weights = path.with_suffix(".bin")
    facts = _facts(path.with_suffix(".json").read_bytes(), path)
    info = ExportInfo.from_metadata(facts, path)
    require_layers(ncnn, path)
    net = ncnn.Net()
    # Half-precision storage, its default, costs three digits and gains nothing on an x86.
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(path)) or net.load_model(str(weights)):
        raise ExportError(f"ncnn {ncnn.__version__} cannot load {path}")
    given, made = info.input_name, info.output_name

    def run(x: Array) -> Array:
        with net.create_extractor() as extractor:
            # A copy: a Mat of an array does not keep it alive, and the layers may write to it.
            extractor.input(given, ncnn.Mat(x[0]).clone())
            status, out = extractor.extract(made)
            if status:
                raise RuntimeError(f"status {status}")
            return np.array(out, np.float32)[None]

    return _Opened(metadata=facts, run=run)


def _open_torch(path: Path, threads: int | None) -> _Opened:
    metadata, archive = open_archive(path)
    facts = _facts(metadata, path)
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

    return _Opened(metadata=facts, run=run)


def _facts(document: bytes, path: Path) -> dict[str, str]:
    """Metadata as a JSON document gives them; what is no mapping has none."""
    try:
        value = parse_json(document)
    except DocumentError as error:
        raise ExportError(
            f"{path}: what it says of itself cannot be read ({error}): export the checkpoint again"
        ) from None
    return value if isinstance(value, dict) else {}


def _only(inputs: Sequence[Any], outputs: Sequence[Any], path: Path) -> tuple[Any, Any]:
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each: "
            "only files of `yolox.export_model` can be run"
        )
    return inputs[0], outputs[0]
