"""int8 OpenVINO files by NNCF, the quantizer of the same maker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from yolox.export.metadata import int8_metadata
from yolox.export.onnx import quiet
from yolox.export.openvino import METADATA_SECTION, save, stamp
from yolox.export.quantize import (
    convolutions,
    is_prediction,
    quantizable,
    require_packages,
    silent,
)
from yolox.export.settings import optional_packages

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_BIASLESS = "/WithoutBiases"  # what OpenVINO's reader of ONNX adds to a convolution's name


class OpenvinoQuantizer:
    """Static quantization of a float ONNX file as an OpenVINO model; see `Quantizer`.

    Activations are uint8, weights int8 with one scale an output channel; of the first layer's
    weights half the range is used, for its sums overflow in 16 bits on a CPU without VNNI. A
    convolution's output is rounded behind its activation function, and biases are corrected on the
    images.
    """

    def __init__(self, source: Path, images: Sequence[Tensor], method: str) -> None:
        """Convert the model; NNCF calibrates anew for each file.

        Args:
            source: float ONNX file of `yolox.export.quantize.write_graph`.
            images: to calibrate on, float32 (1, 3, H, W) each.
            method: ``mean``, ``minmax`` or ``percentile``.
        """
        require_packages("openvino")
        self._openvino, self._nncf, onnx = optional_packages("openvino", "nncf", "onnx")
        self._images = [image.numpy() for image in images]
        self._method = method
        with quiet():
            # Not read_model: with activations in parts and biases computed on the way, NNCF rounds
            # between the parts and finds no bias to correct.
            self._model = self._openvino.convert_model(source)
        proto = onnx.load(source)
        facts = {entry.key: entry.value for entry in proto.metadata_props}
        stamp(self._model, facts)
        layers = convolutions(proto.graph)
        self.nodes = [
            (layers[node.get_friendly_name().removesuffix(_BIASLESS)], node)
            for node in self._model.get_ordered_ops()
            if node.get_type_name() in _CONVOLUTIONS
        ]

    @property
    def layers(self) -> tuple[str, ...]:
        return quantizable(layer for layer, _ in self.nodes)

    def write_float(self, output: Path) -> None:
        save(self._model, output)

    def write(self, output: Path, kept: Collection[str]) -> None:
        nncf = self._nncf
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet
        estimator = {
            "mean": ranges.MEAN_MINMAX,
            "minmax": ranges.MINMAX,
            "percentile": ranges.MEAN_QUANTILE,
        }[self._method]
        with silent():
            quantized = nncf.quantize(
                self._model.clone(),
                nncf.Dataset(self._images),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(self._images),
                ignored_scope=nncf.IgnoredScope(names=self._float_nodes(kept)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.FIRST_LAYER,
                    activations_range_estimator_params=estimator,
                ),
            )
        facts = {key: value.value for key, value in self._model.rt_info[METADATA_SECTION].items()}
        stamp(quantized, facts | int8_metadata(facts, output))
        save(quantized, output)

    def describe(self, file: Path, output: Path, metadata: Mapping[str, str]) -> None:
        model = self._openvino.Core().read_model(file)
        stamp(model, metadata)
        save(model, output)

    def _float_nodes(self, kept: Collection[str]) -> list[str]:
        """Names of the layers to keep, the prediction convolutions, and all that follows these."""
        predictions = [node for layer, node in self.nodes if is_prediction(layer)]
        nodes = [node for layer, node in self.nodes if layer in kept]
        return sorted({node.get_friendly_name() for node in [*nodes, *_downstream(predictions)]})


def _downstream(nodes: Sequence[Any]) -> Iterator[Any]:
    """Nodes and all that depend on them, but for the model's results."""
    seen: set[str] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        name = node.get_friendly_name()
        if name in seen or node.get_type_name() == "Result":
            continue
        seen.add(name)
        yield node
        todo += [
            place.get_node() for output in node.outputs() for place in output.get_target_inputs()
        ]
