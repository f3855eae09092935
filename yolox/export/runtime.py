"""Exported files opened in their own runtimes, as modules that detect like the model itself.

Shape suffixes: B images, A anchor points, C classes, N rows that NMS kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray
from torch import Tensor, nn

from yolox.export.archive import open_archive
from yolox.export.metadata import ExportInfo
from yolox.export.missing import cause_of, unknown_ops, with_layers
from yolox.export.ncnn import require_layers
from yolox.export.openvino import METADATA_SECTION
from yolox.export.runtimes import OPENVINO_PRECISIONS, runtimes_of
from yolox.export.seal import require_parts, require_sealed
from yolox.export.settings import SUFFIXES, ExportError, optional_packages
from yolox.models import ModelSpec
from yolox.models.yolo_head import HeadOutput, decode_boxes
from yolox.utils.boxes import xyxy2cxcywh
from yolox.utils.documents import DocumentError, parse_json
from yolox.utils.errors import UserError

FILE_SUFFIXES = tuple(suffixes[0] for suffixes in SUFFIXES.values())

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A file in a runtime: what it says of itself, shapes as far as the runtime tells them."""

    metadata: Mapping[str, str]
    run: Callable[[Array], Array]
    shapes: tuple[Sequence[int | None], Sequence[int | None]] | None = None


class ExportedModel(nn.Module):
    """A file in a runtime, in place of a model in evaluation mode.

    Attributes:
        info: what the file says of itself.
        runtime: one of `RUNTIMES`.
        precision: of the weights and, where it differs, of the arithmetic.
        path: the file.
    """

    def __init__(
        self,
        path: Path,
        runtime: str,
        info: ExportInfo,
        run: Callable[[Array], Array],
        *,
        arithmetic: str = "f32",
    ):
        super().__init__()
        self.path = path
        self.runtime = runtime
        self.info = info
        self.precision = info.precision
        if arithmetic != "f32":
            self.precision += f", run in {arithmetic}"
        self._run = run

    def run(self, x: Array) -> Array:
        """The runtime's own output for images (B, 3, H, W) of the file's batch size and size.

        Returns:
            (B, A, 5 + C), decoded or not as `info` says; of a file with NMS, rows (N, 8).

        Raises:
            ExportError: a shape that the file does not take, or the runtime fails.
        """
        for said, given in zip(self.info.input_shape, x.shape, strict=True):
            if said not in (None, given):
                raise ExportError(
                    f"{self.path} takes images of {self.info.input_shape}, got {x.shape}: export "
                    "it for that size, or for any"
                )
        try:
            out = self._run(np.ascontiguousarray(x))
        except Exception as error:  # the runtimes' exceptions have no common class
            raise ExportError(
                f"{self.runtime} fails to run {self.path}: {cause_of(error)}"
            ) from error
        self.info.require_output(out.shape, x.shape, self.path)
        return out

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), any B → decoded predictions (B, A, 5 + C) on the images' device.

        Where the file takes a fixed number of images, the last run is filled up with empty ones.
        Of a file with NMS, A is the largest number of boxes kept of an image; rows of NaN, which
        are no detections, fill the others up.
        """
        images = x.detach().float().cpu().numpy()
        count = self.info.batch_size or len(images)
        outputs = []
        for start in range(0, len(images), count):
            part = images[start : start + count]
            whole = np.zeros((count, *part.shape[1:]), np.float32)
            whole[: len(part)] = part
            out = torch.from_numpy(self.run(whole))
            if self.info.nms:
                out = _spread(out, count, self.info)
            outputs.append(self.decode(out, part.shape[-2:])[: len(part)])
        anchors = max(out.shape[1] for out in outputs)
        padded = [
            nn.functional.pad(out, (0, 0, 0, anchors - out.shape[1]), value=torch.nan)
            for out in outputs
        ]
        return torch.cat(padded).to(x.device)

    def spec(self, size: tuple[int, int] | None = None) -> ModelSpec:
        """What a spec says of classes and input size.

        Args:
            size: (height, width) in pixels that images are to be fitted into; the file's own by
                default.

        Raises:
            ExportError: the file takes another size alone.
        """
        info = self.info
        if size not in (None, info.input_size) and not info.dynamic_size:
            asked, own = ("×".join(map(str, sides)) for sides in (size, info.input_size))
            raise ExportError(
                f"images of {asked}, but {self.path} takes {own} alone: leave the size (--tsize) "
                "out, or export it for any size (--dynamic-size)"
            )
        return ModelSpec(
            architecture=info.architecture,
            num_classes=info.num_classes,
            class_names=info.class_names,
            input_size=size or info.input_size,
        )

    def nms_loss(self, conf: float, nms: float) -> str:
        """What is missing where detections of such a score and IoU are asked for, a sentence.

        Empty unless the file has NMS of its own, and that keeps less.
        """
        info = self.info
        if not info.nms or (conf >= info.conf_threshold and nms <= info.nms_threshold):
            return ""
        return (
            f"NMS is in {self.path}: it keeps scores of {info.conf_threshold:g} or more and "
            f"overlaps up to IoU {info.nms_threshold:g}, so asking for scores of {conf:g} and IoU "
            f"{nms:g} brings back nothing"
        )

    def decode(self, out_BAK: Tensor, size: Sequence[int]) -> Tensor:
        """What `run` gives for images of a (height, width), its boxes in pixels."""
        if self.info.decoded:
            return out_BAK
        boxes = decode_boxes(HeadOutput(out_BAK, *_grid(size, self.info.strides)))
        return torch.cat((boxes, out_BAK[..., 4:]), dim=-1)


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


def _open_openvino(path: Path, threads: int | None, precision: str) -> _Opened:
    arithmetic = openvino_arithmetic(precision)
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
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arithmetic,
    }
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    given, made = _only(model.inputs, model.outputs, path)
    request = core.compile_model(model, "CPU", config).create_infer_request()

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
            "only files of tools/export.py can be run"
        )
    return inputs[0], outputs[0]


def _grid(size: Sequence[int], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Column and row (A, 2), and stride (A,), of each anchor of an image (height, width)."""
    cells, scales = [], []
    for stride in strides:
        rows, columns = (torch.arange(side // stride, dtype=torch.float32) for side in size)
        cells.append(torch.cartesian_prod(rows, columns).flip(1))
        scales.append(torch.full((len(cells[-1]),), float(stride)))
    return torch.cat(cells), torch.cat(scales)


def _spread(rows_N8: Tensor, images: int, info: ExportInfo) -> Tensor:
    """Kept rows as predictions (B, A, 5 + C), the class probability at the row's class."""
    parts = [rows_N8[rows_N8[:, 0] == image, 1:] for image in range(images)]
    most = max(len(part) for part in parts)
    out = torch.full((images, most, 5 + info.num_classes), torch.nan)
    for image, part in enumerate(parts):
        found = torch.zeros(len(part), 5 + info.num_classes)
        found[:, :4] = xyxy2cxcywh(part[:, :4])
        found[:, 4] = part[:, 4]
        found.scatter_(1, 5 + part[:, 6:].long(), part[:, 5:6])
        out[image, : len(part)] = found
    return out
