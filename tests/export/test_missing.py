"""Operations that an exporter or a runtime lacks are named, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.export.helpers import SIZE
from yolox.export import ExportSettings, open_exported, seal, write_model
from yolox.export.missing import unknown_ops
from yolox.export.openvino import to_openvino
from yolox.export.settings import ExportError
from yolox.models import load_model

onnx: Any = pytest.importorskip("onnx", reason="needs the export extra", exc_type=ImportError)
pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)
pytest.importorskip("openvino", reason="needs the export extra", exc_type=ImportError)

LAYER = "backbone.backbone.dark3.0"


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def with_strange_op(file: Path, output: Path) -> Path:
    """A file in which two layers have an operation that no runtime knows."""
    proto = onnx.load(file)
    for node in [node for node in proto.graph.node if node.op_type == "Sigmoid"][3:5]:
        node.op_type, node.domain = "Wobble", "our.ops"
    proto.opset_import.append(onnx.helper.make_opsetid("our.ops", 1))
    onnx.save(proto, output)
    return output


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_operation_without_a_form_in_onnx(
    form: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load_model(checkpoint())
    loaded.model.get_submodule(LAYER).act = Bessel()
    output = tmp_path / ("m.onnx" if form == "onnx" else "m.xml")
    said = rf"cannot express bessel_j0 in {LAYER}\.act in ONNX: .*`format='torchscript'`"
    with pytest.raises(ExportError, match=said):
        write_model(loaded, output, ExportSettings(format=form, size=SIZE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_operation_without_a_kernel(
    runtime: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    file = with_strange_op(exported("onnx"), tmp_path / "m.onnx")
    seal(file)  # as whoever changes a file on purpose
    with pytest.raises(ExportError) as caught:
        open_exported(file, runtime=runtime)
    text = str(caught.value)
    assert text.startswith(f"{runtime} cannot load {file}: it lacks Wobble in backbone.backbone.")
    assert text.count(".act") == 2


def test_openvino_converting(
    checkpoint: Callable[..., Path],
    exported: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = onnx.load(with_strange_op(exported("onnx"), tmp_path / "m.onnx"))
    monkeypatch.setattr("yolox.export.openvino.to_onnx", lambda *_: proto)
    model = load_model(checkpoint()).model
    with pytest.raises(ExportError, match=r"^openvino [\d.-]+\S* lacks Wobble in backbone"):
        to_openvino(model, ExportSettings(format="openvino", size=SIZE))


@pytest.mark.parametrize(
    ("text", "ops"),
    [
        ("Could not find an implementation for Mish(18) node with name 'node_1'", ["Mish"]),
        ("1 : FAIL : Fatal error: our.ops:Wobble(-1) is not a registered function/op", ["Wobble"]),
        ("failed:\n-- No conversion rule found for operations: a.B, Mish\n\n", ["B", "Mish"]),
        ("Load model from m.onnx failed:Protobuf parsing failed.", []),
    ],
)
def test_what_runtimes_say(text: str, ops: list[str]) -> None:
    assert unknown_ops(RuntimeError(text)) == ops


def test_an_operation_that_ncnn_lacks(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason="needs the export extra", exc_type=ImportError)
    pytest.importorskip("pnnx", reason="needs the export extra", exc_type=ImportError)
    loaded = load_model(checkpoint())
    loaded.model.get_submodule(LAYER).act = Bessel()
    with pytest.raises(ExportError, match=rf"has no layer \S*bessel_j0 in {LAYER}\.act:"):
        write_model(loaded, tmp_path / "m.param", ExportSettings(format="ncnn", size=SIZE))
    assert not list(tmp_path.iterdir())
