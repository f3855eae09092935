"""Files that Ultralytics' exporter wrote, in their runtimes. Ultralytics itself is not needed.

What they say of themselves lies in the file (ONNX, TorchScript) or beside it (OpenVINO, ncnn).

Shape suffixes: B images, A anchor points, K columns, N boxes that a model kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolox.bench.cases import Array, Case, Detections, Image, OpenedCase, letterboxed
from yolox.bench.guest import Guest
from yolox.bench.memory import main
from yolox.export.archive import open_foreign_archive
from yolox.export.exported_model import filled_up
from yolox.export.missing import cause_of
from yolox.export.ncnn import require_layers
from yolox.export.place import PROVIDERS, place_of
from yolox.export.runtimes import runtimes_of
from yolox.export.sessions import (
    Session,
    open_ncnn,
    open_onnxruntime,
    open_openvino,
    open_torchscript,
    openvino_arithmetic,
)
from yolox.export.settings import ExportError, optional_packages
from yolox.models import ModelSpec
from yolox.utils.boxes import postprocess, xyxy2cxcywh
from yolox.utils.device import CPU
from yolox.utils.documents import parse_yaml, read_yaml
from yolox.utils.errors import UserError
from yolox.utils.printable import printable

AUTHOR = "Ultralytics"  # as their metadata name it
_ARCHIVED = "extra/config.txt"  # metadata within a TorchScript archive
_BESIDE = "metadata.yaml"
_NCNN_NAMES = "in0", "out0"  # pnnx's, of input and output
_VALUES = ("names", "imgsz", "batch", "channels", "end2end", "args")  # that are no words


def file_of(path: Path) -> Path:
    """The file to open of a folder that their exporter wrote (OpenVINO, ncnn); else the path."""
    if path.is_dir() and (path / _BESIDE).is_file():
        for file in (*sorted(path.glob("*.xml")), *sorted(path.glob("*.param"))):
            return file
    return path


def metadata_of(path: Path) -> Mapping[str, Any] | None:
    """What a file of Ultralytics' exporter says of itself; None of any other file.

    Args:
        path: of a file, see `file_of`.
    """
    try:
        facts = _read_metadata(path)
    except (OSError, UserError, zipfile.BadZipFile):
        return None  # whoever opens the file tells what is wrong with it
    return facts if isinstance(facts, Mapping) and facts.get("author") == AUTHOR else None


def _read_metadata(path: Path) -> Any:
    if path.suffix in (".xml", ".param"):
        return read_yaml(path.with_name(_BESIDE))
    if path.suffix == ".torchscript":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.partition("/")[2] == _ARCHIVED:
                    return parse_yaml(archive.read(name))
    if path.suffix == ".onnx":
        return _of_onnx(path)
    return None


def _of_onnx(path: Path) -> Mapping[str, Any] | None:
    (onnx,) = optional_packages("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # of its parser
        return None
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if texts.get("author") != AUTHOR:
        return None
    # Values of Python, which YAML reads as well.
    return texts | {name: parse_yaml(texts[name]) for name in _VALUES if name in texts}


class ExportedDetector(Guest):
    """A detector that Ultralytics' exporter wrote, which runs without Ultralytics."""

    memory_program = "yolox.ultralytics.exported"

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Args: a file, and what `metadata_of` found of it.

        Raises:
            ExportError: it is no detector of colour images, or the metadata make no sense.
        """
        self.path = path
        if facts.get("task") != "detect" or facts.get("channels", 3) != 3:
            raise ExportError(
                f"{path} is for {printable(str(facts.get('task')))} in {facts.get('channels', 3)} "
                "channels: only detectors of colour images can be measured here"
            )
        try:
            names, arguments = facts["names"], facts.get("args") or {}
            ordered = sorted(names, key=int)
            height, width = facts["imgsz"]
            self.spec = ModelSpec(
                num_classes=len(names),
                class_names=tuple(str(names[key]) for key in ordered),
                input_size=(height, width),
            )
            # Not by truth: None of Python is a word to YAML.
            self.any_size = arguments.get("dynamic") is True
            self.batch = None if self.any_size else int(facts["batch"])
            self.keeps = facts.get("end2end") is True or arguments.get("nms") is True
            quantized = arguments.get("quantize")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExportError(
                f"{path}: its metadata are wrong ({printable(repr(error))}): export the model again"
            ) from error
        self.precision = {"16": "fp16", "8": "int8"}.get(str(quantized), "fp32")

    def module(self) -> None:
        """See `Guest`."""

    def network(self) -> nn.Module:
        """See `Guest`."""
        return _Network(self)

    def runnable(self, runtime: str, batch: int, size: tuple[int, int], folder: Path) -> Path:
        """See `Guest`."""
        return self.path

    def open(self, case: Case) -> OpenedCase:
        """See `Guest`."""
        place = place_of(case.runtime, case.device)
        session = self.session(case.runtime, case.threads, case.openvino_precision, place)
        arithmetic = ""
        if case.runtime == "openvino" and case.openvino_precision != "f32":
            arithmetic = f", run in {openvino_arithmetic(case.openvino_precision)}"
        opened = opened_case(
            case, session.run, self.spec.num_classes, f"{self.precision}{arithmetic}", self.keeps
        )
        opened.run(np.zeros((case.batch, 3, *case.size), np.float32))
        return replace(opened, place=place)

    def session(
        self,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str = "f32",
        place: torch.device = CPU,
    ) -> Session:
        """The file in a runtime, by default the one that it is made for.

        Raises:
            ExportError: the runtime is not installed, or does not take the file.
        """
        runtime = runtime or runtimes_of(self.path.suffix)[0]
        try:
            session = self._session(runtime, threads, precision, place)
        except UserError:
            raise
        except Exception as error:  # the runtimes' exceptions have no common class
            raise ExportError(f"{runtime} cannot load {self.path}: {cause_of(error)}") from error

        def run(x: Array) -> Array:
            try:
                return session.run(np.ascontiguousarray(x))
            except Exception as error:
                raise ExportError(
                    f"{runtime} fails to run {self.path}: {cause_of(error)}"
                ) from error

        return replace(session, run=run)

    def _session(
        self, runtime: str, threads: int | None, precision: str, place: torch.device
    ) -> Session:
        if runtime in PROVIDERS:
            return open_onnxruntime(self.path, threads, runtime, place)
        if runtime == "openvino":
            return open_openvino(self.path, threads, precision)
        if runtime == "ncnn":
            (ncnn,) = optional_packages("ncnn")
            require_layers(ncnn, self.path)
            return open_ncnn(self.path, threads, *_NCNN_NAMES)
        _, archive = open_foreign_archive(self.path, _ARCHIVED)
        return open_torchscript(archive, threads)


class _Network(nn.Module):
    """A file in place of a model of ours: images as ours take them, any number of them."""

    def __init__(self, file: ExportedDetector) -> None:
        super().__init__()
        self._file, self._session = file, file.session()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        images = (x.flip(1) / 255).float().cpu().numpy()
        count = self._file.batch or len(images)
        found = []
        for start in range(0, len(images), count):
            whole = filled_up(images[start : start + count], count)
            out = torch.from_numpy(self._session.run(whole))
            found.append(predictions(out, self._file.spec.num_classes, self._file.keeps))
        return torch.cat(found)[: len(images)].to(x.device)


def opened_case(
    case: Case, run: Callable[[Any], Any], classes: int, precision: str, keeps: bool
) -> OpenedCase:
    """A case of a detector of Ultralytics, whoever runs it; its output an array or a tensor."""

    def finish(output: Any, conf: float, nms: float) -> Detections:
        return postprocess(predictions(torch.as_tensor(output), classes, keeps), classes, conf, nms)

    return OpenedCase(
        runtime=case.runtime,
        threads=case.threads,
        batch=case.batch,
        size=case.size,
        precision=precision,
        run=run,
        finish=finish,
        prepare=prepared,
    )


def prepared(image: Image, size: tuple[int, int]) -> Array:
    """A BGR image (height, width, 3) as their models take it: RGB in [0, 1], (3, H, W)."""
    return letterboxed(image, size)[::-1] / np.float32(255)


def predictions(out: Tensor, classes: int, keeps: bool) -> Tensor:
    """Their output as ours: (B, A, 5 + C), boxes cxcywh in pixels, objectness 1.

    Args:
        out: (B, 4 + C, A); or, of a model that keeps the best boxes itself, (B, N, 6) of x1, y1,
            x2, y2, score, class.
        classes: C.
        keeps: whether it is the latter.

    Raises:
        ExportError: another shape.
    """
    columns = 6 if keeps else 4 + classes
    if out.ndim != 3 or out.shape[2 if keeps else 1] != columns:
        raise ExportError(
            f"expected an output with {columns} columns for {classes} classes, got "
            f"{tuple(out.shape)}: export the model again"
        )
    if not keeps:
        out_BAK = out.transpose(1, 2)
        ones_BA1 = torch.ones_like(out_BAK[..., :1])
        return torch.cat((out_BAK[..., :4], ones_BA1, out_BAK[..., 4:]), dim=2)
    found_BNK = out.new_zeros(*out.shape[:2], 5 + classes)
    found_BNK[..., :4] = xyxy2cxcywh(out[..., :4].reshape(-1, 4)).view(*out.shape[:2], 4)
    found_BNK[..., 4] = 1
    index_BN1 = out[..., 5:].round().long().clamp(0, classes - 1)
    return found_BNK.scatter_(2, 5 + index_BN1, out[..., 4:5])


def _open(case: Case) -> OpenedCase:
    facts = metadata_of(case.path)
    if facts is None:
        raise ExportError(f"{case.path} is no file of Ultralytics' exporter")
    return ExportedDetector(case.path, facts).open(case)


if __name__ == "__main__":
    main(_open)
