"""What an exported file says of itself, and whether its graph agrees."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from yolox.data.data_augment import PAD_VALUE
from yolox.export.settings import FORMATS, ExportError, ExportSettings
from yolox.models import LoadedModel
from yolox.utils.documents import parse_json

NMS_COLUMNS = "image, x1, y1, x2, y2, objectness, class probability, class"
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """Facts that a program needs to run a file.

    Attributes:
        format: one of `yolox.export.settings.FORMATS`.
        architecture: ``yolox`` or ``yolov3``.
        class_names: one a class, or empty when unknown.
        num_classes: classes of the head.
        input_size: height and width in pixels; of a file of any size, the one it was made for.
        batch_size: images a run, None for any number.
        dynamic_size: whether height and width may be any multiples of 32.
        decoded: boxes in pixels, else the head's offsets and log sizes.
        nms: the output is what NMS kept, rows of `NMS_COLUMNS`.
        precision: fp32, fp16 (weights), or int8.
        strides: of the head's levels, in the order of the anchors.
        conf_threshold, nms_threshold: least score and IoU of NMS.
        input_name, output_name: in the graph.
        pruned: whether the checkpoint was.
        checkpoint_sha256: of the checkpoint; empty when unknown.
    """

    format: str
    architecture: str
    class_names: tuple[str, ...]
    num_classes: int
    input_size: tuple[int, int]
    batch_size: int | None
    dynamic_size: bool
    decoded: bool
    nms: bool
    precision: str
    strides: tuple[int, ...]
    conf_threshold: float
    nms_threshold: float
    input_name: str
    output_name: str
    pruned: bool
    checkpoint_sha256: str

    @classmethod
    def of(cls, loaded: LoadedModel, settings: ExportSettings, source_sha256: str) -> ExportInfo:
        """The facts of a model exported with these settings."""
        return cls(
            format=settings.format,
            architecture=loaded.spec.architecture,
            class_names=loaded.spec.class_names,
            num_classes=loaded.spec.num_classes,
            input_size=settings.size,
            batch_size=None if settings.dynamic else settings.batch_size,
            dynamic_size=settings.dynamic_size,
            decoded=settings.decode,
            nms=settings.nms,
            precision="fp16" if settings.half else "fp32",
            strides=loaded.model.head.strides,
            conf_threshold=settings.conf,
            nms_threshold=settings.nms_iou,
            input_name=settings.input_name,
            output_name=settings.output_name,
            pruned=loaded.is_pruned,
            checkpoint_sha256=source_sha256,
        )

    @property
    def columns(self) -> int:
        """Length of the output's last axis."""
        return 8 if self.nms else 5 + self.num_classes

    @property
    def input_shape(self) -> tuple[int | None, int, int | None, int | None]:
        """Of the graph's input, None where any number will do."""
        height, width = (None, None) if self.dynamic_size else self.input_size
        return self.batch_size, 3, height, width

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of the graph's output, None where it follows from the input or the picture."""
        if self.nms:
            return None, self.columns
        anchors = None if self.dynamic_size else self._anchors(self.input_size)
        return self.batch_size, anchors, self.columns

    def _anchors(self, size: Sequence[int]) -> int:
        """Anchor points of an image (height, width)."""
        return sum((size[0] // stride) * (size[1] // stride) for stride in self.strides)

    def to_metadata(self) -> dict[str, str]:
        """All facts by name, with those that hold for every file; what is no word is JSON."""
        boxes = "cx, cy, w, h in input pixels" if self.decoded else "x, y, log w, log h in strides"
        rows = f"{boxes}, objectness, class probabilities"
        facts: dict[str, Any] = {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "input_layout": "NCHW",
            "input_color": "BGR",
            "input_range": [0, 255],
            "input_normalized": False,
            "letterbox": "top left",
            "letterbox_value": PAD_VALUE,
            "output_columns": NMS_COLUMNS if self.nms else rows,
        }
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}

    @classmethod
    def from_metadata(cls, values: Mapping[str, str], where: object) -> ExportInfo:
        """The inverse of `to_metadata`; other keys are ignored.

        Args:
            values: of a file's metadata, all as text.
            where: the file, for the messages.

        Raises:
            ExportError: a fact is missing or makes no sense. That none was changed afterwards,
                which most would not show, is for `yolox.export.seal` to find out.
        """
        fields = cls.__dataclass_fields__
        if missing := [name for name in fields if name not in values]:
            raise ExportError(
                f"{where} does not say how it is to be run ({', '.join(missing[:4])} missing): "
                "only files of `yolox.export_model` do, export the checkpoint with it"
            )
        facts, problems = {}, []
        for name, field in fields.items():
            try:
                facts[name] = _parse(str(field.type), str(values[name]))
            except (TypeError, ValueError):
                problems.append(f"{name} is {values[name]!r}")
        if not problems:
            info = cls(**facts)
            problems = info._problems()
        if problems:
            raise ExportError(f"{where}: its metadata are wrong: {'; '.join(problems)}")
        return info

    def _problems(self) -> list[str]:
        problems = []
        if self.format not in FORMATS:
            problems.append(f"format is {self.format}")
        if len(self.input_size) != 2 or any(side < 32 or side % 32 for side in self.input_size):
            problems.append(f"input_size is {self.input_size}")
        if self.num_classes < 1 or len(self.class_names) not in (0, self.num_classes):
            problems.append(f"{len(self.class_names)} class_names, num_classes {self.num_classes}")
        if self.batch_size is not None and self.batch_size < 1:
            problems.append(f"batch_size is {self.batch_size}")
        if not self.strides or min(self.strides) < 1:
            problems.append(f"strides is {self.strides}")
        if self.precision not in PRECISIONS:
            problems.append(f"precision is {self.precision}")
        if self.nms and not self.decoded:
            problems.append("nms without decoded")
        for name in ("conf_threshold", "nms_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} is {getattr(self, name)}")
        if self.format == "ncnn" and (self.batch_size != 1 or self.dynamic_size or self.nms):
            problems.append("ncnn with more than one image of a fixed size, or with NMS")
        return problems

    def require_shapes(
        self, input_shape: Sequence[int | None], output_shape: Sequence[int | None], where: object
    ) -> None:
        """Compare with the graph's own shapes, in which None or less than 0 is any number.

        Raises:
            ExportError: they contradict.
        """
        for what, said, found in (
            ("input", self.input_shape, input_shape),
            ("output", self.output_shape, output_shape),
        ):
            sizes = [None if size is None or size < 0 else size for size in found]
            fits = len(sizes) == len(said) and all(
                a == b or (what == "output" and None in (a, b))
                for a, b in zip(said, sizes, strict=True)
            )
            if not fits:
                raise ExportError(_disagreement(where, what, said, sizes))

    def require_output(self, found: Sequence[int], given: Sequence[int], where: object) -> None:
        """Compare what a run gave for images of a shape (B, 3, H, W) with what is to come of them.

        Raises:
            ExportError: they contradict.
        """
        said: tuple[int, ...] = (given[0], self._anchors(given[2:]), self.columns)
        if self.nms:
            said = (found[0], self.columns)
        if tuple(found) != said:
            raise ExportError(_disagreement(where, "output", said, found))


def int8_metadata(values: Mapping[str, str], where: object) -> dict[str, str]:
    """The metadata of a file once it is quantized."""
    return replace(ExportInfo.from_metadata(values, where), precision="int8").to_metadata()


def _disagreement(
    where: object, what: str, said: Sequence[int | None], found: Sequence[int | None]
) -> str:
    return (
        f"{where}: metadata and graph disagree, {what} {_shape(said)} in the one and "
        f"{_shape(found)} in the other: export the checkpoint again"
    )


def _shape(sizes: Sequence[int | None]) -> str:
    return " × ".join("any" if size is None else str(size) for size in sizes)


def _parse(kind: str, text: str) -> Any:
    """A value of a field's type, as the annotation spells it, from the text of `to_metadata`."""
    if kind == "str":
        return text
    value = parse_json(text)
    item = {"tuple[int, ...]": int, "tuple[int, int]": int, "tuple[str, ...]": str}.get(kind)
    if item is not None:
        if not isinstance(value, list) or any(type(entry) is not item for entry in value):
            raise TypeError(kind)
        return tuple(value)
    if kind == "float" and type(value) in (int, float):
        return float(value)
    allowed = {"bool": (bool,), "int": (int,), "int | None": (int, type(None))}
    if type(value) not in allowed[kind]:
        raise TypeError(kind)
    return value
