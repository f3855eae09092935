"""What an exported file is to look like, and the packages that writing and running one takes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolox.utils.errors import UserError

FORMATS = ("onnx", "openvino", "ncnn", "torchscript")
# Of each format: the file that one opens, then those that have to lie beside it. ncnn's files have
# no place for metadata, so it goes into a file of its own.
SUFFIXES = {
    "onnx": (".onnx",),
    "openvino": (".xml", ".bin"),
    "ncnn": (".param", ".bin", ".json"),
    "torchscript": (".torchscript",),
}
# What writing and running each takes, of the packages that are optional.
PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "ncnn": ("ncnn", "pnnx"),
    "torchscript": (),
}
# Of int8, by format: how the range of an activation follows from the calibration images; the
# first is the default.
METHODS = {
    "onnx": ("percentile", "minmax", "entropy"),
    "openvino": ("mean", "minmax", "percentile"),
}
_NAME = "[A-Za-z_][A-Za-z0-9_]*"  # that every one of the converters takes
OPSET = 18  # the first with all that these models need, Mish and a resize by scale among it


class ExportError(UserError):
    """A model that cannot be exported as asked, or a file that does not compute the same."""


def optional_packages(*names: str) -> list[Any]:
    """Modules of the ``export`` extra, imported now.

    Raises:
        ExportError: those that are not installed, and the line that installs them; those that are
            and cannot be imported, and why.
    """
    modules, missing, broken = [], [], []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                missing.append(name)
            else:
                broken.append(f"{name} ({error})")
    problems = []
    if missing:
        install = f"pip install {' '.join(missing)}"
        problems.append(f"export needs {', '.join(missing)}, not installed here: {install}")
    if broken:
        problems.append(f"installed but broken, install again: {', '.join(broken)}")
    if problems:
        raise ExportError("; ".join(problems))
    return modules


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What the file is to look like.

    Attributes:
        format: one of `FORMATS`.
        size: input height and width in pixels, multiples of 32.
        batch_size: images a run; of no meaning when ``dynamic``.
        dynamic: any number of images a run.
        dynamic_size: any height and width, multiples of 32; ``size`` is then what the file is
            compared at, and what a program takes that has no wish of its own.
        opset: version of the ONNX operators, at least 18: torch's exporter writes no older one.
            OpenVINO files are made from an ONNX graph too.
        input_name, output_name: of the graph's one input and one output.
        decode: boxes in pixels in the graph, else the offsets and log sizes of the head.
        nms: non-maximum suppression in the graph, behind decoded boxes.
        half: weights in float16, input and output still in float32.
        slim: simplify the ONNX graph with onnxslim.
        conf, nms_iou: least score and IoU of NMS, written into the file for who runs it.
    """

    format: str = "onnx"
    size: tuple[int, int]
    batch_size: int = 1
    dynamic: bool = False
    dynamic_size: bool = False
    opset: int = OPSET
    input_name: str = "images"
    output_name: str = "output"
    decode: bool = False
    nms: bool = False
    half: bool = False
    slim: bool = False
    conf: float = 0.3
    nms_iou: float = 0.45

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ExportError("export: " + "; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if self.format not in FORMATS:
            yield f"format must be one of {', '.join(FORMATS)}, got {self.format!r}"
        if any(side < 32 or side % 32 for side in self.size):
            yield f"size must be multiples of 32, got {self.size}"
        if self.opset < OPSET:
            yield f"opset must be at least {OPSET}, got {self.opset}"
        if self.batch_size < 1:
            yield f"batch_size must be at least 1, got {self.batch_size}"
        for name in ("conf", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name} must be in [0, 1], got {getattr(self, name)}"
        names = (self.input_name, self.output_name)
        if names[0] == names[1] or not all(re.fullmatch(_NAME, name) for name in names):
            yield (
                "input and output need names that differ, of letters, digits and _, got "
                f"{names[0]!r} and {names[1]!r}"
            )
        if self.nms and not self.decode:
            yield "NMS in the graph needs decoded boxes"
        if self.nms and self.format in ("ncnn", "torchscript"):
            yield f"{self.format} has no operator for NMS: export it in onnx or openvino"
        if self.half and self.format == "torchscript":
            yield "PyTorch runs float16 badly on a CPU, so torchscript files hold float32"
        if self.format == "ncnn" and (self.dynamic or self.dynamic_size or self.batch_size > 1):
            yield "ncnn files take one image of a fixed size a run"

    def beside(self, output: Path) -> list[Path]:
        """The files of an export: the one that one opens, first, and those that belong to it.

        Raises:
            ExportError: the name does not end as the format's files do, or a file that is none of
                an earlier export of this name would be overwritten.
        """
        main, *others = SUFFIXES[self.format]
        if output.suffix != main:
            raise ExportError(f"{output}: the name of a file for {self.format} ends in {main}")
        files = [output, *(output.with_suffix(suffix) for suffix in others)]
        for kind, (suffix, *rest) in SUFFIXES.items():
            shared = [file for file in files if file.suffix in rest]
            if kind != self.format and shared and output.with_suffix(suffix).exists():
                raise ExportError(
                    f"{shared[0]} may belong to {output.with_suffix(suffix)}: choose another name"
                )
        strangers = [file for file in files[1:] if file.exists() and not output.exists()]
        if strangers:
            raise ExportError(
                f"{output} would be written with {strangers[0]}, which is there and is another "
                "program's or export's: choose another name, or remove it"
            )
        return files
