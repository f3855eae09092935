"""A detector as an ONNX file: exported, described, run in onnxruntime, compared, and then kept."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolox.data.data_augment import PAD_VALUE
from yolox.export.parity import Parity, measure_parity
from yolox.models import YOLOX, LoadedModel
from yolox.models.yolo_head import HeadOutput, decode_boxes
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.model_utils import fuse_model

OPSET = 18  # the first with all that these models need, Mish and a resize by scale among it
INSTALL = 'pip install "yolox-with-pruning[export]"'
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers


class ExportError(UserError):
    """A model that cannot be exported as asked, or whose file does not compute the same."""


def optional_packages(*names: str) -> list[Any]:
    """Modules of the ``export`` extra, imported now.

    Raises:
        ExportError: those that are not installed, and the line that installs them.
    """
    modules, missing = [], []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError:
            missing.append(name)
    if missing:
        raise ExportError(f"export needs {', '.join(missing)}, not installed here: {INSTALL}")
    return modules


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """What the file is to look like.

    Attributes:
        size: input height and width in pixels, multiples of 32.
        batch_size: images a run; of no meaning when ``dynamic``.
        dynamic: any number of images a run.
        opset: version of the ONNX operators, at least 18: torch's exporter writes no older one.
        input_name, output_name: of the graph's one input and one output.
        decode: boxes in pixels in the graph, else the offsets and log sizes of the head.
        slim: simplify with onnxslim.
        conf, nms: least score and IoU of NMS, written into the file for who runs it.
    """

    size: tuple[int, int]
    batch_size: int = 1
    dynamic: bool = False
    opset: int = OPSET
    input_name: str = "images"
    output_name: str = "output"
    decode: bool = False
    slim: bool = False
    conf: float = 0.3
    nms: float = 0.45

    def __post_init__(self) -> None:
        problems = []
        if any(side < 32 or side % 32 for side in self.size):
            problems.append(f"size must be multiples of 32, got {self.size}")
        if self.opset < OPSET:
            problems.append(f"opset must be at least {OPSET}, got {self.opset}")
        if self.batch_size < 1:
            problems.append(f"batch_size must be at least 1, got {self.batch_size}")
        if not self.input_name or not self.output_name or self.input_name == self.output_name:
            problems.append(
                "input and output need names that differ, got "
                f"{self.input_name!r} and {self.output_name!r}"
            )
        if problems:
            raise ExportError("export: " + "; ".join(problems))


class Deployed(nn.Module):
    """The detector in the form that a file holds: images (B, 3, H, W) → (B, A, 5 + C).

    Four box values, objectness and class probabilities. Box values are cx, cy, w, h in pixels with
    ``decode``; without, the head's x and y offset, log w and log h, in strides.
    """

    def __init__(self, model: YOLOX, *, decode: bool) -> None:
        super().__init__()
        self.model = model
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        out = self.model.raw(x)
        boxes = decode_boxes(out) if self.decode else out.raw_BAK[..., :4]
        return torch.cat((boxes, out.raw_BAK[..., 4:].sigmoid()), dim=-1)


def export_onnx(
    loaded: LoadedModel,
    output: str | Path,
    settings: OnnxSettings,
    batches: Iterable[Tensor],
    *,
    source_sha256: str = "",
) -> Parity:
    """Write a model as ONNX once onnxruntime has been seen to compute with it what PyTorch does.

    Args:
        loaded: dense or pruned; not touched.
        output: file to write; its folder is made if need be. What was there stays on any error.
        settings: see there.
        batches: images to compare on, float32 (B, 3, H, W), of the settings' size and batch size.
        source_sha256: of the checkpoint, for the record.

    Raises:
        ExportError: a package is missing, the place cannot be written to, the exporter cannot do
            it at this opset, or onnxruntime's outputs differ.
    """
    onnx, runtime, _ = optional_packages("onnx", "onnxruntime", "onnxscript")
    with replacing(Path(output), ExportError) as temporary:
        proto = _convert(loaded.model, settings)
        if settings.slim:
            (onnxslim,) = optional_packages("onnxslim")
            proto = onnxslim.slim(proto)
        onnx.helper.set_model_props(proto, metadata(loaded, settings, source_sha256))
        onnx.checker.check_model(proto)
        temporary.write_bytes(proto.SerializeToString())
        parity = _compare(runtime, temporary, loaded, settings, batches)
        if parity.problem:
            raise ExportError(
                f"onnxruntime does not compute what PyTorch does, so {output} was not written: "
                f"{parity.problem}. Try another --opset, or --no-slim"
            )
    return parity


def metadata(loaded: LoadedModel, settings: OnnxSettings, source_sha256: str) -> dict[str, str]:
    """What a program that runs the file has to know; values that are not words are JSON."""
    boxes = "cx, cy, w, h in input pixels" if settings.decode else "x, y, log w, log h in strides"
    facts: Mapping[str, Any] = {
        "architecture": loaded.spec.architecture,
        "class_names": list(loaded.spec.class_names),
        "num_classes": loaded.spec.num_classes,
        "input_size": list(settings.size),
        "input_layout": "NCHW",
        "input_color": "BGR",
        "input_range": [0, 255],
        "input_normalized": False,
        "letterbox": "top left",
        "letterbox_value": PAD_VALUE,
        "decoded": settings.decode,
        "output_columns": f"{boxes}, objectness, class probabilities",
        "strides": list(loaded.model.head.strides),
        "conf_threshold": settings.conf,
        "nms_threshold": settings.nms,
        "pruned": loaded.is_pruned,
        "checkpoint_sha256": source_sha256,
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}


def _convert(model: YOLOX, settings: OnnxSettings) -> Any:
    """The graph as a ModelProto, by torch's exporter."""
    fused = fuse_model(Deployed(model, decode=settings.decode)).requires_grad_(False)
    # The tracer takes an axis of 1 for a constant.
    batch = max(settings.batch_size, 2) if settings.dynamic else settings.batch_size
    axes = {0: torch.export.Dim("batch")}
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                fused,
                (torch.zeros(batch, 3, *settings.size),),
                dynamo=True,
                verbose=False,
                opset_version=settings.opset,
                input_names=[settings.input_name],
                output_names=[settings.output_name],
                dynamic_shapes=(axes,) if settings.dynamic else None,
            )
            assert program is not None
            proto = program.model_proto
        except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
            raise ExportError(
                f"torch cannot export this model at opset {settings.opset} "
                f"({str(error).strip().splitlines()[0]}): try --opset {OPSET}"
            ) from error
    reached = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if reached != settings.opset:
        raise ExportError(
            f"torch cannot express this model in opset {settings.opset}, only in {reached}: "
            f"use --opset {reached}"
        )
    return proto


def _compare(
    runtime: Any, path: Path, loaded: LoadedModel, settings: OnnxSettings, batches: Iterable[Tensor]
) -> Parity:
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise ExportError(
            f"onnxruntime {runtime.__version__} cannot load the exported model: {error}"
        ) from error

    def run(x: Tensor) -> Tensor:
        (output,) = session.run([settings.output_name], {settings.input_name: x.numpy()})
        return torch.from_numpy(output)

    _, grid_A2, stride_A = loaded.model.raw(torch.zeros(1, 3, *settings.size))

    def decode(prediction: Tensor) -> Tensor:
        if settings.decode:
            return prediction
        boxes = decode_boxes(HeadOutput(prediction, grid_A2, stride_A))
        return torch.cat((boxes, prediction[..., 4:]), dim=-1)

    return measure_parity(
        # Not fused: folding batch norms is part of what is proven.
        Deployed(loaded.model, decode=settings.decode).eval(),
        run,
        batches,
        decode=decode,
        num_classes=loaded.spec.num_classes,
        conf=settings.conf,
        nms=settings.nms,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and progress that exporters write; errors still show."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
