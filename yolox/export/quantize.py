"""Post-training quantization to int8: its settings, and what a runtime's quantizer offers."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from yolox.export.metadata import ExportInfo
from yolox.export.onnx import quiet, save, stamp, to_onnx
from yolox.export.settings import METHODS, ExportError, ExportSettings, optional_packages
from yolox.models import LoadedModel

_RUNTIMES = {"onnx": ("onnxruntime",), "openvino": ("openvino", "nncf")}
MAX_KEPT_RATIO = 0.5  # of the layers that may stay in float: with more of them it is no int8 file


class QuantizationError(ExportError):
    """A model that cannot be quantized as asked."""


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings:
    """How a model is quantized.

    Attributes:
        format: ``onnx`` or ``openvino``.
        method: of calibration, one of the format's `METHODS`; empty for the first of them.
        max_drop: AP50-95 that may be lost, between 0 and 1.
        keep_anyway: keep the best file even where it loses more.
    """

    format: str = "onnx"
    method: str = ""
    max_drop: float = 0.01
    keep_anyway: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.format not in METHODS:
            problems.append(f"format must be one of {', '.join(METHODS)}, got {self.format!r}")
        elif self.method and self.method not in METHODS[self.format]:
            able = ", ".join(METHODS[self.format])
            problems.append(f"{self.format} calibrates by {able}, got {self.method!r}")
        if not 0 <= self.max_drop <= 1:
            problems.append(f"max_drop must be in [0, 1], got {self.max_drop}")
        if problems:
            raise QuantizationError("quantization: " + "; ".join(problems))

    @property
    def calibration(self) -> str:
        """The method in use."""
        return self.method or METHODS[self.format][0]


def require_packages(kind: str) -> None:
    """Raise `ExportError` unless all packages that a format's quantization takes are installed."""
    if "nncf" in _RUNTIMES[kind]:
        # NNCF tells its maker of each use, unless this is set before it is imported.
        os.environ.setdefault("NNCF_CI", "1")
    optional_packages("onnx", "onnxscript", "onnxslim", *_RUNTIMES[kind])


def write_graph(
    loaded: LoadedModel, file: Path, settings: ExportSettings, source_sha256: str = ""
) -> Path:
    """Write, and return, the float ONNX graph that a quantizer starts from.

    It is in the operators that the quantizer's runtime likes best, with the metadata of the file
    that is to be.
    """
    proto = to_onnx(loaded.model, settings)
    stamp(proto, ExportInfo.of(loaded, settings, source_sha256).to_metadata())
    save(proto, file)
    return file


class Quantizer(Protocol):
    """A calibrated model that can be written with any of its layers left in float.

    The prediction convolutions and all behind them, sigmoid and decoding, are always in float.
    """

    @property
    def layers(self) -> tuple[str, ...]:
        """Convolutions that can be quantized, by module name, in the order of the graph."""
        ...

    def write_float(self, output: Path) -> None:
        """Write the model as it is, for comparison."""
        ...

    def write(self, output: Path, kept: Collection[str]) -> None:
        """Write the model in int8, the layers of `kept` in float."""
        ...

    def describe(self, file: Path, output: Path, metadata: Mapping[str, str]) -> None:
        """Write a copy of a file of `write` with more metadata."""
        ...


def is_prediction(layer: str) -> bool:
    """Whether a convolution makes the head's output."""
    return "_preds." in layer


def quantizable(layers: Iterable[str]) -> tuple[str, ...]:
    """Those of some layers that may be in int8, each once: onnxslim lets equal weights be one."""
    return tuple(dict.fromkeys(layer for layer in layers if not is_prediction(layer)))


def convolutions(graph: Any) -> dict[str, str]:
    """Of an exported ONNX graph: module names of the convolutions, by their nodes' names."""
    return {
        node.name: node.input[1].removeprefix("model.").removesuffix(".weight")
        for node in graph.node
        if node.op_type == "Conv"
    }


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what the quantizers log, warn of and print."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
