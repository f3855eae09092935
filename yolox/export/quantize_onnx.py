"""int8 ONNX files by onnxruntime: convolutions between quantizing and dequantizing nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from yolox.export.metadata import int8_metadata
from yolox.export.onnx import save, stamp
from yolox.export.quantize import convolutions, is_prediction, quantizable, silent
from yolox.export.settings import optional_packages
from yolox.utils.progress import track

PERCENTILE = 99.9  # of an activation's values that lie in its range


class OnnxQuantizer:
    """Static quantization of the convolutions of a float ONNX file; see `Quantizer`.

    Activations are uint8, one scale a tensor; weights uint8, one scale an output channel. Where the
    weights are int8 a CPU without VNNI adds two products in 16 bits, which overflow: the same file
    would compute less there than elsewhere. Activation functions, sums and concatenations work on
    float32.
    """

    def __init__(
        self, source: Path, images: Sequence[Tensor], method: str, input_name: str, folder: Path
    ) -> None:
        """Measure the ranges of the activations.

        Args:
            source: float ONNX file of `yolox.export.quantize.write_graph`.
            images: to calibrate on, float32 (1, 3, H, W) each.
            method: ``percentile``, ``minmax`` or ``entropy``.
            input_name: of the graph.
            folder: for files of its own, there as long as the quantizer is used.
        """
        onnx, quantization = optional_packages("onnx", "onnxruntime.quantization")
        (shapes,) = optional_packages("onnxruntime.quantization.shape_inference")
        self._onnx, self._quantization = onnx, quantization
        self._source = source
        self._prepared = folder / "prepared.onnx"
        self._ranges = folder / "ranges.json"
        self._method = {
            "percentile": quantization.CalibrationMethod.Percentile,
            "minmax": quantization.CalibrationMethod.MinMax,
            "entropy": quantization.CalibrationMethod.Entropy,
        }[method]
        with silent():
            # Its optimizer is left out: batch norms are folded already, and it renames nodes.
            shapes.quant_pre_process(
                source, self._prepared, skip_optimization=True, skip_symbolic_shape=True
            )
        graph = onnx.load(self._prepared, load_external_data=False).graph
        self.nodes = convolutions(graph)
        self._calibrate([image.numpy() for image in images], input_name, folder)

    @property
    def layers(self) -> tuple[str, ...]:
        return quantizable(self.nodes.values())

    def write_float(self, output: Path) -> None:
        output.write_bytes(self._source.read_bytes())

    def write(self, output: Path, kept: Collection[str]) -> None:
        self._quantize(output, None, kept)
        proto = self._onnx.load(output)
        facts = {entry.key: entry.value for entry in proto.metadata_props}
        stamp(proto, int8_metadata(facts, output))
        save(proto, output)

    def describe(self, file: Path, output: Path, metadata: Mapping[str, str]) -> None:
        proto = self._onnx.load(file)
        stamp(proto, metadata)
        save(proto, output)

    def _calibrate(
        self, images: Sequence[NDArray[np.float32]], input_name: str, folder: Path
    ) -> None:
        """Fill the file of ranges that every `write` reads."""
        self._quantize(folder / "calibrated.onnx", _reader(self._quantization, images, input_name))

    def _quantize(self, output: Path, reader: Any, kept: Collection[str] = ()) -> None:
        excluded = [
            node for node, layer in self.nodes.items() if layer in kept or is_prediction(layer)
        ]
        kinds = self._quantization.QuantType
        with silent():
            self._quantization.quantize_static(
                self._prepared,
                output,
                reader,
                quant_format=self._quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=excluded,
                per_channel=True,
                activation_type=kinds.QUInt8,
                weight_type=kinds.QUInt8,
                calibrate_method=self._method,
                calibration_cache_path=self._ranges,
                extra_options={
                    # One image at a time, or histograms would take all activations of all images.
                    "CalibStridedMinMax": 1,
                    "CalibPercentile": PERCENTILE,
                    # Of an activation's values, not of their magnitudes.
                    "CalibTensorRangeSymmetric": False,
                },
            )


def _reader(quantization: Any, images: Sequence[NDArray[np.float32]], input_name: str) -> Any:
    """The images as onnxruntime's calibration reads them, with progress."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._shown = track(images, "Calibrating")
            self._part: Iterator[NDArray[np.float32]] = iter(())

        def __len__(self) -> int:
            return len(images)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._part = (next(self._shown) for _ in range(start_index, end_index))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._part, None)
            return None if image is None else {input_name: image}

    return Reader()
