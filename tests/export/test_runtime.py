"""Exported files in place of a model, and files that are not what they should be."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.helpers import SIZE, images, reference
from yolox.export import (
    FORMATS,
    ExportError,
    ExportSettings,
    is_exported,
    open_exported,
    seal,
    write_model,
)
from yolox.export.archive import METADATA_FILE, seal_archive
from yolox.export.ncnn import require_layers
from yolox.export.onnx import save, stamp
from yolox.export.sessions import onnxruntime_options
from yolox.export.settings import PACKAGES, SUFFIXES
from yolox.models import load_model

for package in {name for names in PACKAGES.values() for name in names}:
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)
ncnn: Any = pytest.importorskip("ncnn")
onnx: Any = pytest.importorskip("onnx")

Files = Callable[..., Path]


def copied(file: Path, folder: Path) -> Path:
    """The file and those beside it, in another folder."""
    for part in file.parent.glob(file.stem + ".*"):
        shutil.copy(part, folder)
    return folder / file.name


def problem(file: Path, **options: Any) -> str:
    with pytest.raises(ExportError) as raised:
        open_exported(file, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_of_ultralytics_is_named_as_one(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "nothing", [value], [value])
    model, file = onnx.helper.make_model(graph), tmp_path / "best.onnx"
    onnx.save(model, file)
    assert "Ultralytics" not in problem(file)
    onnx.helper.set_model_props(model, {"author": "Ultralytics"})
    onnx.save(model, file)
    assert f"{file} was exported by Ultralytics" in problem(file)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("torchscript", {"batch_size": 2}),
        ("torchscript", {"decode": False, "dynamic": True}),
        ("torchscript", {"decode": False, "batch_size": 4}),
        ("ncnn", {"decode": False}),
        ("ncnn", {"decode": True}),
    ],
)
def test_any_number_of_images_passes_through_decoded(
    kind: str, settings: dict[str, Any], checkpoint: Files, exported: Files
) -> None:
    file = exported(kind, **settings)
    before = torch.get_num_threads()
    model = open_exported(file, threads=before + 1)
    assert is_exported(file)
    assert not is_exported(checkpoint())
    x = images(3)
    out = model(x)
    torch.testing.assert_close(out, reference(checkpoint(), x), rtol=1e-3, atol=2e-2)
    assert torch.get_num_threads() == before
    assert (model.info.checkpoint_sha256, model.info.format) == ("abc", kind)


def test_an_onnx_file_runs_in_openvino_too(checkpoint: Files, exported: Files) -> None:
    file = exported("onnx")
    x = images(1)
    ours = open_exported(file, runtime="openvino", threads=1)
    assert (ours.runtime, open_exported(file).runtime) == ("openvino", "onnxruntime")
    torch.testing.assert_close(ours(x), reference(checkpoint(), x), rtol=1e-3, atol=2e-2)
    assert "what does: onnxruntime, tensorrt, openvino" in problem(file, runtime="ncnn")
    assert "f32, bf16, default" in problem(file, runtime="openvino", precision="f8")


def test_no_thread_of_onnxruntime_spins_between_two_runs() -> None:
    options = onnxruntime_options(2)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.intra_op_num_threads == 2


def test_images_of_another_size_are_refused(exported: Files) -> None:
    for kind in ("torchscript", "ncnn"):
        model = open_exported(exported(kind))
        with pytest.raises(ExportError, match=r"takes images of \(1, 3, 64, 64\)"):
            model.run(images(2).numpy())
        with pytest.raises(ExportError, match="export it for that size"):
            model(images(1, (32, 96)))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_that_is_missing_or_damaged(kind: str, exported: Files, tmp_path: Path) -> None:
    main, *others = SUFFIXES[kind]
    assert "make one with `yolox.export_model`" in problem(tmp_path / f"none{main}")
    for suffix in others:
        file = copied(exported(kind), tmp_path)
        file.with_suffix(suffix).unlink()
        said = problem(file)
        assert str(file.with_suffix(suffix)) in said
        assert f"beside {file.name}" in said
    for suffix in (main, *others[:1]):
        file = copied(exported(kind), tmp_path)
        part = file.with_suffix(suffix)
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
        assert str(file) in problem(file)


def test_files_of_other_programs(exported: Files, tmp_path: Path) -> None:
    file = copied(exported("onnx"), tmp_path)
    proto = onnx.load(file)
    for text, change in (
        ("1 × 3 × 96 × 64 in the one and 1 × 3 × 64 × 64", {"input_size": "[96, 64]"}),
        ("output 1 × 80 × 8 in the one and 1 × 84 × 8", {"strides": "[8, 16]"}),
        ("3 class_names, num_classes 4", {"num_classes": "4"}),
    ):
        facts = {entry.key: entry.value for entry in onnx.load(exported("onnx")).metadata_props}
        onnx.helper.set_model_props(proto, facts | change)
        onnx.save(proto, file)
        assert "is not as exported" in problem(file)
        seal(file)
        assert text in problem(file)
    del proto.metadata_props[:]
    onnx.save(proto, file)
    assert "or no file of `yolox.export_model`" in problem(file)
    assert "expected an exported file" in problem(tmp_path / "model.tflite")


def test_ncnn_metadata_of_another_export(exported: Files, tmp_path: Path) -> None:
    file = copied(exported("ncnn"), tmp_path)
    facts = json.loads(file.with_suffix(".json").read_text())
    facts |= {"num_classes": "2", "class_names": "[]"}
    file.with_suffix(".json").write_text(json.dumps(facts))
    seal(file)
    model = open_exported(file)
    with pytest.raises(ExportError, match="output 1 × 84 × 7 in the one and 1 × 84 × 8 in the"):
        model.run(images(1).numpy())


def test_metadata_of_another_size(exported: Files, tmp_path: Path) -> None:
    """Of runtimes that tell no shapes before they run."""
    change = {"input_size": "[96, 64]", "strides": "[8, 16]"}
    file = copied(exported("ncnn"), tmp_path)
    facts = json.loads(file.with_suffix(".json").read_text())
    file.with_suffix(".json").write_text(json.dumps(facts | {"strides": "[8, 16]"}))
    seal(file)
    with pytest.raises(ExportError, match="output 1 × 80 × 8 in the one and 1 × 84 × 8"):
        open_exported(file).run(images(1).numpy())
    file = copied(exported("torchscript"), tmp_path)
    extra = {METADATA_FILE: ""}
    module = torch.jit.load(file, _extra_files=extra)
    extra[METADATA_FILE] = json.dumps(json.loads(extra[METADATA_FILE]) | change)
    torch.jit.save(module, file, _extra_files=extra)
    assert "does not say how it is to be run" in problem(file)
    seal_archive(file)
    with pytest.raises(ExportError, match="output 1 × 120 × 8 in the one and 1 × 126 × 8"):
        open_exported(file).run(images(1, (96, 64)).numpy())


def test_a_layer_that_ncnn_lacks_is_named(exported: Files, tmp_path: Path) -> None:
    file = copied(exported("ncnn"), tmp_path)
    require_layers(ncnn, file)
    lines = file.read_text().splitlines()
    _, name = lines[5].split()[:2]
    lines[5] = lines[5].replace(lines[5].split()[0], "Imagined", 1)
    file.write_text("\n".join(lines))
    with pytest.raises(ExportError, match=rf"has no layer Imagined in {name}:"):
        require_layers(ncnn, file)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "ncnn"])
def test_a_runtime_that_is_not_installed(
    kind: str,
    checkpoint: Files,
    exported: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = exported(kind)
    name = {"onnx": "onnxruntime"}.get(kind, kind)
    monkeypatch.setitem(sys.modules, name, None)
    said = problem(file)
    assert name in said
    assert f"pip install {name}" in said
    if kind != "onnx":
        output = tmp_path / file.name
        settings = ExportSettings(format=kind, size=SIZE)
        with pytest.raises(ExportError, match="pip install"):
            write_model(load_model(checkpoint()), output, settings)
        assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_is_broken_is_not_called_missing(
    exported: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name}: libsomething.so.1 is not there")

    monkeypatch.setattr("importlib.import_module", broken)
    said = problem(exported("onnx"))
    assert "installed but broken, install again: onnxruntime (onnxruntime: libsomething" in said
    assert "pip install" not in said


def test_a_file_under_the_name_of_another_format(exported: Files, tmp_path: Path) -> None:
    file = copied(exported("onnx"), tmp_path)
    proto = onnx.load(file)
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    stamp(proto, facts | {"format": "openvino"})
    save(proto, file)
    assert "says of itself that it is for openvino" in problem(file)
