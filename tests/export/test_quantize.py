"""int8 files of both formats: near to float in their own runtime, and int8 just where they say."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import SPECS
from tests.pruning.helpers import enliven, random_plan
from yolox.data import preproc
from yolox.export import ExportSettings, open_exported, sample_scene
from yolox.export.quantize import (
    METHODS,
    QuantizationError,
    Quantizer,
    QuantizeSettings,
    is_prediction,
    write_graph,
)
from yolox.export.quantize_onnx import OnnxQuantizer
from yolox.export.quantize_openvino import OpenvinoQuantizer
from yolox.models import LoadedModel, build_model
from yolox.pruning import apply_plan, trace_groups

onnx = pytest.importorskip("onnx", reason="needs the export extra", exc_type=ImportError)
for package in ("onnxruntime", "onnxscript", "onnxslim"):
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)

SIZE = (64, 64)
KEPT = ("backbone.backbone.dark3.1.conv1.conv", "head.stems.0.conv")
# Power of the output over that of what rounding adds to it. Random weights pass on every error,
# trained ones do better; a wrong scale or a layer left out gives less than 5.
LEAST_DB = 12.0


def scenes(*seeds: int) -> list[Tensor]:
    return [torch.from_numpy(preproc(sample_scene(SIZE, seed), SIZE)[0])[None] for seed in seeds]


IMAGES = scenes(0, 1, 2, 3)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Float graphs, by format, of a dense model with SiLU and of a pruned one with Mish."""
    folder = tmp_path_factory.mktemp("graphs")
    files = {}
    for name, act in (("dense", "silu"), ("pruned", "mish")):
        spec = dataclasses.replace(
            SPECS["yolox-s"], width=0.125, act=act, num_classes=3, input_size=SIZE
        )
        model: Any = enliven(build_model(spec)).eval()
        content = {}
        if name == "pruned":
            groups = trace_groups(model, torch.rand(1, 3, *SIZE))
            model = apply_plan(model, groups, random_plan(groups, random.Random(0), share=0.5))
            content = {"channels": {}}
        loaded = LoadedModel(model=model.eval(), spec=spec, pruning=[], content=content)
        for kind in METHODS:
            settings = ExportSettings(format=kind, size=SIZE, decode=True, slim=True)
            files[kind, name] = write_graph(loaded, folder / f"{kind}_{name}.onnx", settings)
    return files


def quantizer_of(kind: str, source: Path, folder: Path, method: str) -> tuple[Quantizer, str]:
    if kind == "onnx":
        return OnnxQuantizer(source, IMAGES, method, "images", folder), ".onnx"
    pytest.importorskip("nncf", reason="needs the export extra", exc_type=ImportError)
    return OpenvinoQuantizer(source, IMAGES, method), ".xml"


Written = Callable[[str, str, tuple[str, ...]], tuple[Quantizer, Path]]


@pytest.fixture(scope="module")
def written(
    graphs: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Written:
    """Quantizes a graph of a format once with some layers left in float; not to be written to."""

    @functools.cache
    def quantizer(kind: str, model: str) -> tuple[Quantizer, str, Path]:
        folder = tmp_path_factory.mktemp("quantized")
        return *quantizer_of(kind, graphs[kind, model], folder, "minmax"), folder

    @functools.cache
    def write(kind: str, model: str, kept: tuple[str, ...]) -> tuple[Quantizer, Path]:
        made, suffix, folder = quantizer(kind, model)
        path = folder / f"{len(kept)}{suffix}"
        made.write(path, kept)
        return made, path

    return write


def decibels(expected: Tensor, got: Tensor) -> float:
    noise = (expected - got).double().pow(2).sum().clamp(min=1e-30)
    return float(10 * torch.log10(expected.double().pow(2).sum() / noise))


def onnx_float_convolutions(path: Path) -> set[str]:
    """Layers whose weight is a float constant, read by the convolution itself."""
    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return {
        node.input[1].removeprefix("model.").removesuffix(".weight")
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in constants
    }


def openvino_float_convolutions(path: Path, quantizer: Any) -> set[str]:
    """Layers whose weight comes from no 8-bit constant, and whose input is not rounded."""
    import openvino

    layers = {node.get_friendly_name(): layer for layer, node in quantizer.nodes}
    found = set()
    for node in openvino.Core().read_model(path).get_ordered_ops():
        if node.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        given, weight = (node.input_value(place).get_node() for place in (0, 1))
        while weight.get_type_name() != "Constant":
            weight = weight.input_value(0).get_node()
        if weight.get_element_type() == openvino.Type.f32:
            assert given.get_type_name() != "FakeQuantize"
            found.add(layers[node.get_friendly_name()])
    return found


@pytest.mark.parametrize("model", ["dense", "pruned"])
def test_openvino_rounds_behind_activations_and_corrects_biases(
    model: str, written: Written, tmp_path: Path
) -> None:
    quantizer, int8 = written("openvino", model, ())
    import openvino

    nodes = openvino.Core().read_model(int8).get_ordered_ops()
    rounded = [
        node.input_value(0).get_node().get_type_name()
        for node in nodes
        if node.get_type_name() == "FakeQuantize"
    ]
    activation = "Swish" if model == "dense" else "Mish"
    assert rounded.count(activation) > 40
    assert not {"Convolution", "GroupConvolution", "Sigmoid", "Multiply"} & set(rounded)

    def biases(path: Path) -> dict[str, Any]:
        return {
            node.get_friendly_name(): node.input_value(1).get_node().get_data()
            for node in openvino.Core().read_model(path).get_ordered_ops()
            if node.get_type_name() == "Add"
            and node.input_value(0).get_node().get_type_name() == "Convolution"
            and node.input_value(1).get_node().get_type_name() == "Constant"
        }

    quantizer.write_float(tmp_path / "float.xml")
    before, after = biases(tmp_path / "float.xml"), biases(int8)
    # NNCF leaves a bias alone that would have to move by a multiple of itself.
    assert any(not np.allclose(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("kind", "model"), [("onnx", "dense"), ("openvino", "pruned")])
def test_near_to_float_and_in_float_just_where_asked(
    kind: str, model: str, written: Written, tmp_path: Path
) -> None:
    quantizer, whole_int8 = written(kind, model, ())
    suffix, layers = whole_int8.suffix, quantizer.layers
    assert set(KEPT) < set(layers)
    assert not any(is_prediction(layer) for layer in layers)
    predictions = {f"head.{k}_preds.{n}" for k in ("cls", "reg", "obj") for n in range(3)}

    def floats(path: Path) -> set[str]:
        if kind == "onnx":
            return onnx_float_convolutions(path)
        return openvino_float_convolutions(path, quantizer)

    before = tmp_path / f"float{suffix}"
    quantizer.write_float(before)
    x = torch.cat(scenes(4, 5))
    expected = open_exported(before)(x)
    assert floats(before) == {*layers, *predictions}

    for kept in ((), KEPT):
        path = written(kind, model, kept)[1]
        opened = open_exported(path)
        assert opened.info == dataclasses.replace(open_exported(before).info, precision="int8")
        assert floats(path) == {*kept, *predictions}
        got = opened(x)
        assert not torch.equal(got, expected)
        assert decibels(expected[..., :4], got[..., :4]) > LEAST_DB
        assert decibels(expected[..., 4:], got[..., 4:]) > LEAST_DB

    whole = open_exported(written(kind, model, tuple(layers))[1])
    if kind == "onnx":
        assert torch.equal(whole(x), expected)
    else:  # sums and poolings are rounded still
        assert decibels(expected, whole(x)) > LEAST_DB

    described = tmp_path / f"described{suffix}"
    quantizer.describe(whole_int8, described, {"quantization": json.dumps(["ü"])})
    again = open_exported(described)
    assert torch.equal(again(x), open_exported(whole_int8)(x))
    assert b"quantization" in described.read_bytes()


def test_onnx_ranges_are_those_of_the_images(
    graphs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    scales = {}
    for method in ("minmax", "percentile", "entropy"):
        folder = tmp_path / method
        folder.mkdir()
        quantizer, _ = quantizer_of("onnx", graphs["onnx", "pruned"], folder, method)
        quantizer.write(tmp_path / "m.onnx", ())
        proto = onnx.load(tmp_path / "m.onnx")
        node = next(n for n in proto.graph.node if "images" in n.input)
        assert node.op_type == "QuantizeLinear"
        values = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        scales[method] = float(values[node.input[1]])
        assert int(values[node.input[2]]) == 0
        kinds = {n.op_type for n in proto.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
        # Decoding and activations have no rounded inputs: all of them go through Conv alone.
        readers = {
            n.op_type for n in proto.graph.node if n.input[0].endswith("_DequantizeLinear_Output")
        }
        assert "Conv" in readers
    largest = float(torch.cat(IMAGES).max())
    assert scales["minmax"] == pytest.approx(largest / 255, rel=1e-6)
    high = float(np.percentile(torch.cat(IMAGES).numpy(), 99.95))
    assert scales["percentile"] == pytest.approx(high / 255, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "ncnn"}, ["onnx, openvino", "'ncnn'"]),
        ({"format": "openvino", "method": "entropy"}, ["mean, minmax, percentile", "'entropy'"]),
        ({"max_drop": -0.1}, ["max_drop", "-0.1"]),
        ({"max_drop": 1.5, "format": ""}, ["max_drop", "format"]),
    ],
)
def test_settings_that_make_no_sense(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(QuantizationError) as caught:
        QuantizeSettings(**fields)
    for word in words:
        assert word in str(caught.value)


def test_each_format_has_a_default_of_its_own() -> None:
    assert QuantizeSettings(format="onnx").calibration == "percentile"
    assert QuantizeSettings(format="openvino").calibration == "mean"
    assert QuantizeSettings(method="minmax").calibration == "minmax"
