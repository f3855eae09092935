"""Single layers as small networks, in the form that each runtime reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yolox.export.settings import optional_packages
from yolox.models.network_blocks import get_activation
from yolox.utils.conv_kind import ConvKind, Pair

OPSET, IR_VERSION = 18, 10
_LEAKY_SLOPE = 0.1  # of lrelu
_NCNN_ACTS = {"silu": "Swish", "mish": "Mish", "relu": "ReLU", "lrelu": "ReLU"}


def layer_weights(kind: ConvKind, pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (outputs, inputs or 1, kh, kw) and bias (outputs,) that keep values in range."""
    inputs, outputs = (1, pair[1]) if kind.depthwise else pair
    rng = np.random.default_rng(0)
    scale = (2 / (inputs * kind.kernel[0] * kind.kernel[1])) ** 0.5
    weight = scale * rng.standard_normal((outputs, inputs, *kind.kernel), dtype=np.float32)
    return weight, rng.standard_normal(outputs, dtype=np.float32)


def layer_image(kind: ConvKind, channels: int) -> NDArray[np.float32]:
    """What a layer of so many input channels is timed on: noise (1, C, H, W), always the same."""
    rng = np.random.default_rng(channels)
    return rng.standard_normal((1, channels, *kind.size), dtype=np.float32)


def conv_graph(kind: ConvKind, pairs: Sequence[Pair], *, plain_mish: bool = True) -> Any:
    """An ONNX model with a branch a pair, convolution and activation, from an input a width.

    Every node's name, and the tensor that it makes, begins with ``layer<number of the pair>_``.

    Args:
        kind: of all the layers.
        pairs: (inputs, outputs), a layer each.
        plain_mish: see `yolox.export.graph.deployed`.
    """
    onnx, _ = optional_packages("onnx", "onnx.helper")
    make, tensor = onnx.helper, onnx.numpy_helper.from_array
    nodes, constants, outputs = [], [], []
    for number, pair in enumerate(pairs):
        stem = f"layer{number}_"
        weight, bias = layer_weights(kind, pair)
        constants += [tensor(weight, f"{stem}w"), tensor(bias, f"{stem}b")]
        nodes.append(
            make.make_node(
                "Conv",
                [f"x{pair[0]}", f"{stem}w", f"{stem}b"],
                [f"{stem}conv"],
                name=f"{stem}conv",
                kernel_shape=kind.kernel,
                strides=kind.stride,
                pads=kind.padding * 2,
                group=pair[0] if kind.depthwise else 1,
            )
        )
        if kind.act == "mish" and plain_mish:
            constants.append(tensor(np.ones((), np.float32), f"{stem}one"))
            nodes += _plain_mish_nodes(make, stem)
        else:
            nodes += _activation_nodes(make, kind.act, stem)
        shape = [1, pair[1], None, None]
        outputs.append(
            make.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, shape)
        )
    inputs = [
        make.make_tensor_value_info(f"x{width}", onnx.TensorProto.FLOAT, [1, width, *kind.size])
        for width in dict.fromkeys(inputs for inputs, _ in pairs)
    ]
    graph = make.make_graph(nodes, "layers", inputs, outputs, constants)
    # An older format of the file than onnx's own newest: runtimes lag behind.
    opset = make.make_opsetid("", OPSET)
    return make.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def _activation_nodes(make: Any, act: str, stem: str) -> list[Any]:
    """As torch's exporter writes them."""
    conv, out = f"{stem}conv", f"{stem}act"
    if not act:
        return []
    if act == "silu":
        return [
            make.make_node("Sigmoid", [conv], [f"{stem}gate"], name=f"{stem}gate"),
            make.make_node("Mul", [conv, f"{stem}gate"], [out], name=out),
        ]
    if act == "lrelu":
        return [make.make_node("LeakyRelu", [conv], [out], name=out, alpha=_LEAKY_SLOPE)]
    return [make.make_node({"mish": "Mish", "relu": "Relu"}[act], [conv], [out], name=out)]


def _plain_mish_nodes(make: Any, stem: str) -> list[Any]:
    """As `yolox.export.graph.SigmoidMish` is exported."""
    steps = (
        ("Neg", "negative", "conv"),
        ("Sigmoid", "sigmoid", "negative"),
        ("Mul", "square", "sigmoid", "sigmoid"),
        ("Sub", "above", "one", "square"),
        ("Add", "below", "one", "square"),
        ("Div", "gate", "above", "below"),
        ("Mul", "act", "conv", "gate"),
    )
    return [
        make.make_node(op, [stem + name for name in given], [stem + made], name=stem + made)
        for op, made, *given in steps
    ]


def nothing_graph(kind: ConvKind, channels: int) -> Any:
    """An ONNX model that adds 0 to its input."""
    onnx, _ = optional_packages("onnx", "onnx.helper")
    make = onnx.helper
    shape = [1, channels, *kind.size]
    given, made = (
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")
    )
    zero = onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")
    node = make.make_node("Add", ["x", "zero"], ["y"])
    graph = make.make_graph([node], "nothing", [given], [made], [zero])
    opset = make.make_opsetid("", OPSET)
    return make.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def torch_layer(kind: ConvKind, pair: Pair) -> nn.Sequential:
    """A layer as the models are timed: a batch norm folded into it, channels last."""
    groups = pair[0] if kind.depthwise else 1
    conv = nn.Conv2d(*pair, kind.kernel, kind.stride, kind.padding, groups=groups)
    act = [get_activation(kind.act)] if kind.act else []
    return nn.Sequential(conv, *act).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def torch_image(kind: ConvKind, channels: int) -> Tensor:
    """`layer_image`, channels last."""
    image = torch.from_numpy(layer_image(kind, channels))
    return image.contiguous(memory_format=torch.channels_last)


def ncnn_text(kind: ConvKind, pair: Pair | None) -> str:
    """An ncnn network: the layer of a pair, or nothing, and the mean over each channel."""
    layers = ["Input input 0 1 x"]
    top = "x"
    if pair is not None:
        weight, _ = layer_weights(kind, pair)
        fields = {
            0: pair[1],  # output channels
            1: kind.kernel[1],  # width first
            11: kind.kernel[0],
            3: kind.stride[1],
            13: kind.stride[0],
            4: kind.padding[1],
            14: kind.padding[0],
            5: 1,  # there is a bias
            6: weight.size,
        }
        if kind.depthwise:
            fields[7] = pair[0]
        values = " ".join(f"{key}={value}" for key, value in fields.items())
        name = "ConvolutionDepthWise" if kind.depthwise else "Convolution"
        layers.append(f"{name} conv 1 1 x conv {values}")
        top = "conv"
        if kind.act:
            slope = f" 0={_LEAKY_SLOPE}" if kind.act == "lrelu" else ""
            layers.append(f"{_NCNN_ACTS[kind.act]} act 1 1 conv act{slope}")
            top = "act"
    layers.append(f"Pooling mean 1 1 {top} mean 0=1 4=1")
    return "\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers]) + "\n"
