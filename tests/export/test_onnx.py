"""ONNX files beyond the plain one: NMS in the graph, any batch and size, TensorRT, float16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.export.helpers import SIZE, images, reference
from yolox.export import ExportSettings, export_model, open_exported, write_model
from yolox.export.onnx import rename, with_nms
from yolox.models import load_model
from yolox.utils.boxes import postprocess

onnx: Any = pytest.importorskip("onnx", reason="needs the export extra", exc_type=ImportError)
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="needs the export extra", exc_type=ImportError
)
pytest.importorskip("onnxscript", reason="needs the export extra", exc_type=ImportError)

# Of TensorRT's ONNX parser, the operators that a convolutional network may hold. No Mish, NonZero
# or OneHot, which its older versions lack.
OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose DepthToSpace DequantizeLinear Div Equal Erf Exp Expand
    Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool Greater GreaterOrEqual
    HardSigmoid Identity InstanceNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool
    Min Mul Neg NonMaxSuppression Not Or Pad Pow PRelu QuantizeLinear Range ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Shape
    Sigmoid Sign Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK
    Transpose Unsqueeze Where"""
TENSORRT = set(OPERATORS.split())


def kept(path: Path, x: Tensor, conf: float, nms: float) -> list[np.ndarray]:
    """Rows of NMS in PyTorch with the image's number before them, sorted, an array an image."""
    found = postprocess(reference(path, x), 3, conf, nms)
    return [ordered(np.zeros((0, 7)) if rows is None else rows.numpy()) for rows in found]


def ordered(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows[:, ::-1].T)] if len(rows) else rows


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_nms_in_the_graph_keeps_what_postprocess_keeps(
    kind: str, checkpoint: Callable[..., Path], exported: Callable[..., Path]
) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="needs the export extra", exc_type=ImportError)
    file = exported(kind, nms=True, dynamic=True, conf=0.2, nms_iou=0.5)
    model = open_exported(file)
    x = torch.cat((images(2), torch.zeros(1, 3, *SIZE)))
    rows = model.run(x.numpy())
    assert rows.shape[1] == 8
    assert set(rows[:, 0]) <= {0, 1, 2}
    expected = kept(checkpoint(), x, 0.2, 0.5)
    assert min(len(part) for part in expected[:2]) >= 3
    for image, part in enumerate(expected):
        own = ordered(rows[rows[:, 0] == image, 1:])
        np.testing.assert_allclose(own, part, rtol=1e-3, atol=2e-3)
    # In place of a model: the evaluator's own NMS finds nothing more to drop, nor the filling.
    again = postprocess(model(x), 3, 0.0, 0.5)
    for found, part in zip(again, expected, strict=True):
        own = np.zeros((0, 7)) if found is None else found.numpy()
        np.testing.assert_allclose(ordered(own), part, rtol=1e-3, atol=5e-3)


def test_a_score_at_the_threshold_is_kept_and_only_the_best_class_counts() -> None:
    """The suppression alone, on predictions written by hand."""
    empty = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[b, a, 7] images) => '
        "(float[b, a, 7] yolox_predictions) { yolox_predictions = Identity (images) }"
    )
    settings = ExportSettings(size=SIZE, decode=True, nms=True, conf=0.5, nms_iou=0.45)
    session = onnxruntime.InferenceSession(with_nms(empty, 2, settings).SerializeToString())
    rows = [
        [10, 10, 8, 8, 1.0, 0.5, 0.5],  # exactly at the threshold, both classes: the first counts
        [10, 10, 8, 8, 1.0, 0.1, 0.9],  # another class: stays beside it
        [11, 10, 8, 8, 1.0, 0.1, 0.8],  # overlaps that one
        [40, 40, 8, 8, 0.5, 0.9, 0.9],  # below the threshold
    ]
    (found,) = session.run(None, {"images": np.array([rows], np.float32)})
    assert ordered(found[:, 1:]).tolist() == [
        [6, 6, 14, 14, 1, 0.5, 0],
        [6, 6, 14, 14, 1, np.float32(0.9), 1],
    ]


@pytest.mark.parametrize("nms", [False, True])
def test_any_name_for_input_and_output(
    nms: bool, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Those of operations within the graph too."""
    file, scene = tmp_path / "m.onnx", images(1)
    own = ("picture", "found")
    settings = ExportSettings(
        size=SIZE, decode=True, slim=True, nms=nms, input_name=own[0], output_name=own[1]
    )
    assert not export_model(load_model(checkpoint()), file, settings, [scene]).problem
    expected = None
    for names in (own, ("sigmoid", "cat"), ("predictions", "sigmoid"), ("output", "images")):
        proto = onnx.load(file)
        if names != own:
            rename(proto.graph, dict(zip(own, names, strict=True)))
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        assert [value.name for value in session.get_inputs()] == [names[0]]
        assert [value.name for value in session.get_outputs()] == [names[1]]
        (output,) = session.run(None, {names[0]: scene.numpy()})
        expected = output if expected is None else expected
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize(
    ("kind", "act", "settings"), [("nano", "mish", {}), ("slim", "silu", {"nms": True})]
)
def test_tensorrt_has_every_operator(
    kind: str, act: str, settings: dict[str, bool], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    chosen = ExportSettings(size=SIZE, decode=True, slim=True, **settings)
    file = write_model(load_model(checkpoint(kind, act)), tmp_path / "m.onnx", chosen)
    graph = onnx.load(file).graph
    used = {node.op_type for node in graph.node}
    assert used <= TENSORRT, used - TENSORRT
    assert ("NonMaxSuppression" in used) is bool(settings)
    assert all(node.domain == "" for node in graph.node)
    kernels = [list(a.ints) for n in graph.node for a in n.attribute if a.name == "kernel_shape"]
    assert [6, 6] in kernels, "Focus is folded"


@pytest.mark.slow
def test_any_size(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = checkpoint("slim", "mish")
    settings = ExportSettings(size=SIZE, dynamic=True, dynamic_size=True, decode=False)
    output = tmp_path / "m.onnx"
    parity = export_model(load_model(source), output, settings, [images(1), images(2, (32, 96))])
    assert parity.images == 3
    model = open_exported(output)
    for size in ((64, 64), (32, 96), (128, 32)):
        x = images(2, size)
        torch.testing.assert_close(model(x), reference(source, x), rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "ncnn"])
def test_float16_halves_the_file(
    kind: str, checkpoint: Callable[..., Path], exported: Callable[..., Path], tmp_path: Path
) -> None:
    for package in ("openvino", "ncnn", "pnnx"):
        pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)
    plain = exported(kind)
    output = tmp_path / plain.name
    settings = ExportSettings(format=kind, size=SIZE, decode=True, half=True)
    parity = export_model(load_model(checkpoint()), output, settings, [images(1)])
    assert parity.problem == ""
    model = open_exported(output)
    assert model.info.precision == "fp16"
    assert open_exported(plain).info.precision == "fp32"

    def weight(path: Path) -> int:
        return max(p.stat().st_size for p in path.parent.glob(path.stem + ".*"))

    assert 0.4 * weight(plain) < weight(output) < 0.75 * weight(plain)
    x = images(1)
    assert model.run(x.numpy()).dtype == np.float32
    expected = reference(checkpoint(), x)
    difference = (model(x) - expected).abs()
    assert 0 < difference[..., 4:].max() < 0.1
    assert difference[..., :4].max() < 0.05 * expected[..., :4].max()
