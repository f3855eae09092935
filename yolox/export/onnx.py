"""A detector as an ONNX graph, by torch's exporter; non-maximum suppression behind it."""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolox.export.graph import deployed
from yolox.export.missing import op_without_onnx
from yolox.export.seal import SEAL_KEY, UNSEALED_DIGEST, seal
from yolox.export.settings import OPSET, ExportError, ExportSettings, optional_packages
from yolox.models import YOLOX

_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "onnxslim", "openvino", "nncf")  # loggers
# Names while the graph is made, which no operation takes for a value of its own.
_IMAGES, _PREDICTIONS, _DETECTIONS = "yolox_images", "yolox_predictions", "yolox_detections"

# Boxes of different classes do not compete. The class scores but the best are -1, below any
# threshold, so that an anchor is of its best class only. An anchor is a candidate when its score is
# above `least`.
_NMS = """
<ir_version: {ir_version}, opset_import: ["": {opset}]>
nms (float[batch, anchors, {columns}] yolox_predictions) => (float[kept, 8] yolox_detections)
<int64[4] nms_parts = {{2, 2, 1, {classes}}}, int64[3] nms_thirds = {{1, 1, 1}},
 int64[1] nms_last = {{2}}, int64[{classes}] nms_numbers = {{{numbers}}},
 float[1] nms_half = {{0.5}}, float[1] nms_never = {{-1.0}},
 float[1] nms_iou = {{{iou!r}}}, float[1] nms_least = {{{least!r}}}>
{{
  nms_xy, nms_wh, nms_objectness, nms_classes = Split <axis = 2> (yolox_predictions, nms_parts)
  nms_reach = Mul (nms_wh, nms_half)
  nms_top_left = Sub (nms_xy, nms_reach)
  nms_bottom_right = Add (nms_xy, nms_reach)
  nms_boxes = Concat <axis = 2> (nms_top_left, nms_bottom_right)
  nms_best = ReduceMax <keepdims = 1> (nms_classes, nms_last)
  nms_which = ArgMax <axis = 2, keepdims = 1> (nms_classes)
  nms_is_best = Equal (nms_which, nms_numbers)
  nms_score = Mul (nms_objectness, nms_best)
  nms_scored = Where (nms_is_best, nms_score, nms_never)
  nms_scores = Transpose <perm = [0, 2, 1]> (nms_scored)
  nms_anchors = Shape <start = 1, end = 2> (nms_boxes)
  nms_kept = NonMaxSuppression (nms_boxes, nms_scores, nms_anchors, nms_iou, nms_least)
  nms_image, nms_class, nms_anchor = Split <axis = 1> (nms_kept, nms_thirds)
  nms_place = Concat <axis = 1> (nms_image, nms_anchor)
  nms_label = Cast <to = 1> (nms_which)
  nms_rows = Concat <axis = 2> (nms_boxes, nms_objectness, nms_best, nms_label)
  nms_found = GatherND (nms_rows, nms_place)
  nms_number = Cast <to = 1> (nms_image)
  yolox_detections = Concat <axis = 1> (nms_number, nms_found)
}}
"""


def to_onnx(model: YOLOX, settings: ExportSettings, network: Any = None) -> Any:
    """The graph as a ModelProto, without metadata.

    Args:
        model: not touched.
        settings: see there.
        network: what `convert` made of both, where that is there already; not touched.

    Raises:
        ExportError: a package is missing, or the exporter cannot do it at this opset.
    """
    proto = convert(model, settings) if network is None else copy.deepcopy(network)
    if settings.nms:
        proto = with_nms(proto, model.head.num_classes, settings)
    if settings.slim:
        (onnxslim,) = optional_packages("onnxslim")
        with quiet():
            proto = onnxslim.slim(proto)
    made = _DETECTIONS if settings.nms else _PREDICTIONS
    rename(proto.graph, {_IMAGES: settings.input_name, made: settings.output_name})
    return proto


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Give values of a graph other names, in place; what already has one of these makes way."""
    values = [*graph.input, *graph.output, *graph.initializer, *graph.value_info]
    taken = {value.name for value in values}
    taken.update(name for node in graph.node for name in (*node.input, *node.output))
    new = dict(names)
    for name in names.values():
        if name in taken:
            new[name] = next(
                other for n in itertools.count(1) if (other := f"{name}_{n}") not in taken
            )
    for value in values:
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]


def stamp(proto: Any, metadata: Mapping[str, str]) -> None:
    """Write metadata into a ModelProto, in place; keys that are there already are replaced."""
    (onnx,) = optional_packages("onnx")
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**kept, **metadata})


def save(proto: Any, file: Path) -> None:
    """Write a ModelProto that is stamped, sealed."""
    stamp(proto, {SEAL_KEY: UNSEALED_DIGEST})
    file.write_bytes(proto.SerializeToString())
    seal(file)


def convert(model: YOLOX, settings: ExportSettings) -> Any:
    """The network alone as a ModelProto: neither suppressed nor simplified nor renamed.

    Raises:
        ExportError: see `to_onnx`.
    """
    optional_packages("onnx", "onnxscript")
    # The tracer takes an axis of 1 for a constant.
    batch = max(settings.batch_size, 2) if settings.dynamic else settings.batch_size
    axes: dict[int, Any] = {0: torch.export.Dim("batch")} if settings.dynamic else {}
    size = settings.size
    if settings.dynamic_size:
        axes |= {2: 32 * torch.export.Dim("rows"), 3: 32 * torch.export.Dim("columns")}
        size = (96, 128)  # sides that differ, or the tracer might take one for the other
    # OpenVINO has a good Mish, and rounds weights to float16 itself, as it writes its file.
    itself = settings.format == "openvino"
    network = deployed(
        model,
        decode=settings.decode,
        rescale=settings.half,
        half=settings.half and not itself,
        plain_mish=not itself,
    )
    images = torch.zeros(batch, 3, *size)
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=settings.opset,
                input_names=[_IMAGES],
                output_names=[_PREDICTIONS],
                dynamic_shapes=(axes,) if axes else None,
            )
            assert program is not None
            proto = program.model_proto
        except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
            if lacking := op_without_onnx(error, network, images):
                raise ExportError(
                    f"torch cannot express {lacking} in ONNX: put another operation in its place, "
                    "or use `format='torchscript'`"
                ) from error
            raise ExportError(
                f"torch cannot export this model at opset {settings.opset} "
                f"({str(error).strip().splitlines()[0]}): try `opset={OPSET}`"
            ) from error
    reached = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if reached != settings.opset:
        raise ExportError(
            f"torch cannot express this model in opset {settings.opset}, only in {reached}: "
            f"use `opset={reached}`"
        )
    return proto


def with_nms(proto: Any, num_classes: int, settings: ExportSettings) -> Any:
    """A graph's predictions put through NMS, as `yolox.utils.boxes.postprocess` does.

    Rows (N, 8) take its place: `yolox.export.metadata.NMS_COLUMNS`, image by image, class by class,
    by falling score.
    """
    (onnx,) = optional_packages("onnx")
    # The operator keeps what is above a threshold, postprocess what is at it too.
    least = np.nextafter(np.float32(settings.conf), np.float32(-1))
    text = _NMS.format(
        ir_version=proto.ir_version,
        opset=settings.opset,
        columns=5 + num_classes,
        classes=num_classes,
        numbers=", ".join(map(str, range(num_classes))),
        iou=settings.nms_iou,
        least=float(least),
    )
    suppression = onnx.parser.parse_model(text)
    return onnx.compose.merge_models(proto, suppression, io_map=[(_PREDICTIONS, _PREDICTIONS)])


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
