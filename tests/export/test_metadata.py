"""What a file says of itself comes back as it was, or is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.helpers import NAMES
from yolox.export import ExportError, ExportInfo, ExportSettings
from yolox.export.metadata import int8_metadata
from yolox.models import load_model


@pytest.fixture
def info(checkpoint: Callable[..., Path]) -> ExportInfo:
    settings = ExportSettings(size=(32, 96), dynamic=True, decode=True, conf=0.2, nms_iou=0.6)
    return ExportInfo.of(load_model(checkpoint("slim", "mish", "pruned")), settings, "abc")


def test_round_trip(info: ExportInfo) -> None:
    assert (info.input_size, info.batch_size, info.pruned) == ((32, 96), None, True)
    assert info.class_names == NAMES
    for case in (
        info,
        dataclasses.replace(info, batch_size=4, class_names=(), nms=True, precision="int8"),
        dataclasses.replace(info, dynamic_size=True, conf_threshold=1.0, nms_threshold=0.0),
    ):
        values = case.to_metadata()
        assert all(isinstance(value, str) for value in values.values())
        assert ExportInfo.from_metadata(values | {"note": "of another program"}, "m.onnx") == case


def test_what_holds_for_every_file_is_said_too(info: ExportInfo) -> None:
    values = info.to_metadata()
    assert [values[f"input_{k}"] for k in ("color", "layout", "range", "normalized")] == [
        "BGR", "NCHW", "[0, 255]", "false",
    ]  # fmt: skip
    assert values["letterbox_value"] == "114"
    assert values["output_columns"].startswith("cx, cy, w, h in input pixels, objectness")
    with_nms = dataclasses.replace(info, nms=True)
    assert with_nms.to_metadata()["output_columns"].startswith("image, x1, y1, x2, y2, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strides": None}, "strides missing"),
        ({"num_classes": "three"}, "num_classes is 'three'"),
        ({"num_classes": "true"}, "num_classes is 'true'"),
        ({"num_classes": "4"}, "3 class_names, num_classes 4"),
        ({"input_size": "[64, 65]"}, "input_size is (64, 65)"),
        ({"input_size": "[64]"}, "input_size is (64,)"),
        ({"input_size": "[64.0, 64]"}, "input_size is '[64.0, 64]'"),
        ({"class_names": '{"a": 1}'}, "class_names is"),
        ({"precision": "fp8"}, "precision is fp8"),
        ({"batch_size": "0"}, "batch_size is 0"),
        ({"decoded": "false", "nms": "true"}, "nms without decoded"),
        ({"conf_threshold": "NaN"}, "conf_threshold is 'NaN'"),
        ({"nms_threshold": "7"}, "nms_threshold is 7.0"),
        ({"format": "banana"}, "format is banana"),
        ({"format": "ncnn"}, "ncnn with more than one image"),
        ({"class_names": "[" * 1000}, "class_names is"),
        ({"decoded": "1", "pruned": "no"}, "decoded is '1'; pruned is 'no'"),
    ],
)
def test_what_makes_no_sense_is_named(
    change: dict[str, str | None], words: str, info: ExportInfo
) -> None:
    values = {k: v for k, v in {**info.to_metadata(), **change}.items() if v is not None}
    with pytest.raises(ExportError, match=re.escape(words)) as raised:
        ExportInfo.from_metadata(values, "model.onnx")
    assert "model.onnx" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_quantized_file_says_so(info: ExportInfo) -> None:
    values = int8_metadata(info.to_metadata(), "m.onnx")
    assert ExportInfo.from_metadata(values, "m") == dataclasses.replace(info, precision="int8")


def test_shapes_of_the_graph(info: ExportInfo) -> None:
    anchors = 4 * 12 + 2 * 6 + 1 * 3
    info.require_shapes((-1, 3, 32, 96), (None, anchors, 8), "m")
    info.require_shapes((None, 3, 32, 96), (None, None, 8), "m")
    fixed = dataclasses.replace(info, batch_size=2)
    fixed.require_shapes((2, 3, 32, 96), (2, anchors, 8), "m")
    any_size = dataclasses.replace(info, dynamic_size=True)
    any_size.require_shapes((None, 3, None, None), (None, None, 8), "m")
    suppressed = dataclasses.replace(fixed, nms=True)
    suppressed.require_shapes((2, 3, 32, 96), (None, 8), "m")
    for case, given, made in (
        (info, (1, 3, 32, 96), (None, anchors, 8)),
        (info, (None, 3, 96, 32), (None, anchors, 8)),
        (info, (None, 3, 32, 96), (None, anchors, 9)),
        (info, (None, 3, 32, 96), (None, anchors - 1, 8)),
        (fixed, (None, 3, 32, 96), (2, anchors, 8)),
        (any_size, (None, 3, 32, 96), (None, None, 8)),
        (suppressed, (2, 3, 32, 96), (2, anchors, 8)),
    ):
        with pytest.raises(ExportError, match="metadata and graph disagree"):
            case.require_shapes(given, made, "m")


def test_settings_name_all_that_is_wrong_at_once() -> None:
    with pytest.raises(ExportError) as raised:
        ExportSettings(format="ncnn", size=(50, 64), nms=True, dynamic=True, conf=2)
    for words in ("(50, 64)", "needs decoded", "no operator for NMS", "one image", "conf must be"):
        assert words in str(raised.value)
    with pytest.raises(ExportError, match="tflite"):
        ExportSettings(format="tflite", size=(64, 64))


def test_files_of_two_exports_do_not_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "m.xml").touch()
    ncnn = ExportSettings(format="ncnn", size=(64, 64))
    with pytest.raises(ExportError, match="may belong to"):
        ncnn.beside(tmp_path / "m.param")
    (tmp_path / "n.json").touch()
    with pytest.raises(ExportError, match=r"would be written with .*n\.json, which is there"):
        ncnn.beside(tmp_path / "n.param")
    (tmp_path / "n.param").touch()  # an earlier export
    ncnn.beside(tmp_path / "n.param")
    names = [file.name for file in ncnn.beside(tmp_path / "m.ncnn.param")]
    assert names == ["m.ncnn.param", "m.ncnn.bin", "m.ncnn.json"]
    with pytest.raises(ExportError, match=r"ends in \.param"):
        ncnn.beside(tmp_path / "m.onnx")
