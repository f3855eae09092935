"""A detector as an OpenVINO model, read by it from the ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolox.export.missing import cause_of, unknown_ops, with_layers
from yolox.export.onnx import quiet, to_onnx
from yolox.export.seal import COMPANION_DIGESTS, SEAL_KEY, UNSEALED_DIGEST, seal
from yolox.export.settings import ExportError, ExportSettings, optional_packages
from yolox.models import YOLOX

METADATA_SECTION = "yolox"  # of the runtime information, under which the metadata is


def to_openvino(model: YOLOX, settings: ExportSettings, network: Any = None) -> Any:
    """The model as an ``openvino.Model``, without metadata; arguments as `to_onnx`.

    Raises:
        ExportError: a package is missing, or an exporter cannot do it.
    """
    (openvino,) = optional_packages("openvino")
    proto = to_onnx(model, settings, network)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            return openvino.Core().read_model(path)
        except RuntimeError as error:  # the base of all its exceptions
            lacking = with_layers(unknown_ops(error), proto.graph)
            raise ExportError(
                f"openvino {openvino.__version__} "
                + (
                    f"lacks {lacking}"
                    if lacking
                    else f"cannot convert this model: {cause_of(error)}"
                )
            ) from error


def stamp(model: Any, metadata: Mapping[str, str]) -> None:
    """Write metadata into an ``openvino.Model``, in place."""
    for key, value in metadata.items():
        model.set_rt_info(value, [METADATA_SECTION, key])


def save(model: Any, file: Path, *, half: bool = False) -> None:
    """Write an ``openvino.Model`` that is stamped, sealed."""
    (openvino,) = optional_packages("openvino")
    stamp(model, {SEAL_KEY: UNSEALED_DIGEST, **COMPANION_DIGESTS[".xml"]})
    openvino.save_model(model, file, compress_to_fp16=half)
    seal(file)
