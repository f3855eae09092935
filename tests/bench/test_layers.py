"""Layers as they are timed: they are those of the models, and every runtime tells their times."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from yolox.bench.layer_graphs import conv_graph, layer_weights, ncnn_text
from yolox.bench.layers import NcnnNet, layer_timer
from yolox.export.runtimes import LAYER_RUNTIMES
from yolox.export.settings import PACKAGES, ExportError
from yolox.models.network_blocks import get_activation
from yolox.utils.conv_kind import ConvKind, Pair
from yolox.utils.errors import UserError

for package in {name for names in PACKAGES.values() for name in names}:
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)

PAIRS: list[Pair] = [(8, 16), (6, 16), (8, 5)]
OWN_PAIRS: list[Pair] = [(8, 8), (6, 6)]  # of depthwise layers


def conv_kind(act: str = "silu", *, depthwise: bool = False, stride: int = 1) -> ConvKind:
    return ConvKind(
        kernel=(3, 3),
        stride=(stride, stride),
        padding=(1, 1),
        depthwise=depthwise,
        size=(12, 20),
        act=act,
    )


def by_torch(kind: ConvKind, pair: Pair, x: Any) -> Any:
    """What a layer makes of an image, by PyTorch."""
    weight, bias = (torch.from_numpy(array) for array in layer_weights(kind, pair))
    groups = pair[0] if kind.depthwise else 1
    out = nn.functional.conv2d(
        torch.from_numpy(x), weight, bias, kind.stride, kind.padding, groups=groups
    )
    return (get_activation(kind.act)(out) if kind.act else out).numpy()


KINDS = [
    conv_kind(),
    conv_kind("mish", stride=2),
    conv_kind("relu", depthwise=True),
    conv_kind("lrelu"),
    conv_kind(""),
]


@pytest.mark.parametrize("plain_mish", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.act}{kind.depthwise}")
def test_each_branch_of_the_graph_is_the_layer(kind: ConvKind, plain_mish: bool) -> None:
    import onnxruntime

    pairs = OWN_PAIRS if kind.depthwise else PAIRS
    proto = conv_graph(kind, pairs, plain_mish=plain_mish)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    feed = {
        entry.name: rng.standard_normal(entry.shape, dtype=np.float32)
        for entry in session.get_inputs()
    }
    for pair, out in zip(pairs, session.run(None, feed), strict=True):
        expected = by_torch(kind, pair, feed[f"x{pair[0]}"])
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert any(node.op_type == "Mish" for node in proto.graph.node) is (
        kind.act == "mish" and not plain_mish
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.act}{kind.depthwise}")
def test_the_ncnn_network_is_the_layer(kind: ConvKind) -> None:
    import ncnn

    for pair in OWN_PAIRS if kind.depthwise else PAIRS:
        weight, bias = layer_weights(kind, pair)
        content = bytes(4) + weight.tobytes() + bias.tobytes()
        net = NcnnNet(ncnn, ncnn_text(kind, pair), content, threads=1)
        image = np.random.default_rng(0).standard_normal((pair[0], *kind.size), dtype=np.float32)
        status, mean = net.run(ncnn.Mat(image).clone())
        assert status == 0
        expected = by_torch(kind, pair, image[None]).mean((0, 2, 3))
        np.testing.assert_allclose(np.array(mean), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("runtime", LAYER_RUNTIMES)
@pytest.mark.parametrize("kind", KINDS[:3], ids=lambda kind: f"{kind.act}{kind.depthwise}")
def test_every_layer_has_a_time_of_its_own(
    runtime: str, kind: ConvKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolox.bench.layers.TIMED_RUNS", 3)
    pairs = OWN_PAIRS if kind.depthwise else PAIRS
    times = layer_timer(runtime, threads=1)(kind, pairs)
    assert len(times) == len(pairs)
    assert all(0 < milliseconds < 1000 for milliseconds in times)


def test_layers_of_openvino_in_bf16_have_times_of_their_own() -> None:
    times = layer_timer("openvino", threads=1, openvino_precision="bf16")(conv_kind(), PAIRS)
    assert len(times) == len(PAIRS)
    assert all(0 < milliseconds < 1000 for milliseconds in times)
    with pytest.raises(ExportError, match="f32, bf16, default: int4"):
        layer_timer("openvino", threads=1, openvino_precision="int4")(conv_kind(), PAIRS)


def test_a_layer_wider_than_one_network_holds_is_timed_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yolox.bench.layers.TIMED_RUNS", 3)
    monkeypatch.setattr("yolox.bench.layers.NETWORK_WEIGHTS", 9 * 8 * 16)
    assert all(ms > 0 for ms in layer_timer("onnxruntime", threads=1)(conv_kind(), PAIRS * 2))


def test_images_of_ncnn_outlive_the_arrays_that_they_were_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Mat of an array does not keep it alive: layers would be timed on freed memory."""
    from yolox.bench import layers

    seen: list[Any] = []

    def run(self: NcnnNet, image: Any) -> None:
        gc.collect()
        _ = np.full((8, 12, 20), np.nan, np.float32)  # takes the place of what was freed
        seen.append(np.array(image))

    monkeypatch.setattr(layers, "TIMED_RUNS", 1)
    monkeypatch.setattr(NcnnNet, "run", run)
    kind = conv_kind()
    layer_timer("ncnn", threads=1)(kind, [(8, 16)])
    assert seen
    for image in seen:
        np.testing.assert_array_equal(image, layers.layer_image(kind, 8)[0])


def test_what_cannot_be_timed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="torch, onnxruntime, openvino, ncnn, got 'tvm'"):
        layer_timer("tvm", threads=1)
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    with pytest.raises(ExportError, match="pip install"):
        layer_timer("ncnn", threads=1)
