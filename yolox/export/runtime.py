"""Exported files opened in their own runtimes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from loguru import logger

from yolox.export.archive import open_archive
from yolox.export.exported_model import ExportedModel
from yolox.export.metadata import ExportInfo
from yolox.export.missing import cause_of, unknown_ops, with_layers
from yolox.export.ncnn import require_layers
from yolox.export.place import PROVIDERS, place_of
from yolox.export.runtimes import runtimes_of
from yolox.export.seal import require_parts, require_sealed
from yolox.export.sessions import (
    Session,
    open_ncnn,
    open_onnxruntime,
    open_openvino,
    open_torchscript,
    openvino_arithmetic,
)
from yolox.export.settings import SUFFIXES, ExportError, optional_packages
from yolox.utils.documents import DocumentError, parse_json
from yolox.utils.errors import UserError

FILE_SUFFIXES = tuple(suffixes[0] for suffixes in SUFFIXES.values())
# What Ultralytics' exporter writes into a file or beside it, in protobuf, JSON and YAML.
_ULTRALYTICS = re.compile(rb"author\W{1,4}Ultralytics")


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


def refuse_for_exported(path: str | Path, given: Mapping[str, object]) -> None:
    """Raise `UserError` for what makes no sense for an exported file.

    Args:
        path: the file.
        given: arguments or flags as a person writes them, and their values; those that are true
            were given.
    """
    if names := [name for name, value in given.items() if value]:
        raise UserError(
            f"{' and '.join(names)} cannot be had of {path}: it runs as it was exported, in its "
            "own runtime; leave that out, or give the checkpoint"
        )


def open_exported(
    path: str | Path,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    precision: str = "f32",
    device: str | torch.device = "cpu",
) -> ExportedModel:
    """Open a file of `yolox.export`.

    Args:
        path: of the file that the export names; what belongs to it lies beside it.
        threads: of one run; the runtime's own choice by default.
        runtime: one of `RUNTIMES`; by default the one that the file is made for.
        precision: of OpenVINO's arithmetic. ``default`` leaves it to OpenVINO, which takes bf16 on
            some CPUs.
        device: where it computes; ``auto`` is the accelerator if the runtime can use it.

    Raises:
        ExportError: no such file, part of it missing, damaged, of another program, or whose
            metadata and graph disagree; a runtime that is not installed, does not take it or does
            not compute there.
    """
    path = Path(path)
    if not is_exported(path):
        raise ExportError(f"{path}: expected an exported file, {' or '.join(FILE_SUFFIXES)}")
    try:
        return _open(path, threads, runtime, precision, device)
    except ExportError:
        if _is_ultralytics(path):
            raise ExportError(
                f"{path} was exported by Ultralytics: `yolox.jobs.measure` measures its speed, "
                "`yolox.jobs.report` its AP; to detect with it, use their own program (yolo "
                "predict)"
            ) from None
        raise


def _open(
    path: Path,
    threads: int | None,
    runtime: str | None,
    precision: str,
    device: str | torch.device,
) -> ExportedModel:
    require_parts(path)
    able = runtimes_of(path.suffix)
    runtime = runtime or able[0]
    if runtime not in able:
        raise ExportError(f"{runtime} does not run {path}; what does: {', '.join(able)}")
    if path.suffix != ".torchscript":  # whose archive is checked as it is read
        require_sealed(path)
    place = place_of(runtime, device)
    try:
        if runtime in PROVIDERS:
            opened = open_onnxruntime(path, threads, runtime, place)
        elif runtime == "openvino":
            opened = open_openvino(path, threads, precision)
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
    return ExportedModel(path, runtime, info, opened.run, arithmetic=arithmetic, place=place)


def _reason(error: Exception, path: Path) -> str:
    """Why a runtime does not take a file: what it lacks, or the first line of what it says."""
    if path.suffix == ".onnx" and (ops := unknown_ops(error)):
        (onnx,) = optional_packages("onnx")
        return f"it lacks {with_layers(ops, onnx.load(path).graph)}"
    return cause_of(error)


def _is_ultralytics(path: Path) -> bool:
    beside = [path.with_name("metadata.yaml")] if path.suffix in (".xml", ".param") else []
    files = filter(Path.is_file, (path, *beside))
    return any(_ULTRALYTICS.search(file.read_bytes()) for file in files)


def _open_ncnn(path: Path, threads: int | None) -> Session:
    (ncnn,) = optional_packages("ncnn")
    facts = _facts(path.with_suffix(".json").read_bytes(), path)
    info = ExportInfo.from_metadata(facts, path)
    require_layers(ncnn, path)
    session = open_ncnn(path, threads, info.input_name, info.output_name)
    return replace(session, metadata=facts)


def _open_torch(path: Path, threads: int | None) -> Session:
    metadata, archive = open_archive(path)
    return replace(open_torchscript(archive, threads), metadata=_facts(metadata, path))


def _facts(document: bytes, path: Path) -> dict[str, str]:
    """Metadata as a JSON document gives them; what is no mapping has none."""
    try:
        value = parse_json(document)
    except DocumentError as error:
        raise ExportError(
            f"{path}: its metadata cannot be read ({error}): export the checkpoint again"
        ) from None
    return value if isinstance(value, dict) else {}
