"""The quantization command: a file that eval and demo take, layers put back to float, refusals."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runs import command, error_lines, tree
from yolox.exp import get_exp
from yolox.export import ExportedModel, is_exported, open_exported
from yolox.export.quantize import QuantizationError, QuantizeSettings
from yolox.jobs.quantize import QuantizeJob, calibration_images
from yolox.models import load_model
from yolox.tools import eval as eval_tool
from yolox.tools import quantize
from yolox.utils.checkpoint import file_digest

onnx = pytest.importorskip("onnx", reason="needs the export extra", exc_type=ImportError)
for package in ("onnxruntime", "onnxscript", "onnxslim"):
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)


def test_a_file_from_the_command_line(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "m.onnx"
    status = command(
        quantize.main, "-c", pruned, "-o", output, "--calibration-images", 3, "--calibration",
        "minmax", "-f", tiny_exp,
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 0, err
    for words in ("float32", "int8", "AP50-95", "latency ms"):
        assert words in out
    assert "in float beside the prediction convolutions: 0 of" in err
    assert list(tree(tmp_path)) == ["deep/m.onnx"]

    info = open_exported(output).info
    assert (info.precision, info.pruned, info.decoded) == ("int8", True, True)
    assert info.checkpoint_sha256 == file_digest(pruned)
    facts = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    said = json.loads(facts["quantization"])
    assert said["method"] == "minmax"
    assert said["calibration_images"] == 3
    assert said["float_layers"] == []

    assert command(eval_tool.main, "-c", output, "-f", tiny_exp) == 0
    assert f"{said['ap50_95']['int8']:.4f}" in capsys.readouterr().err


def float_layers(model: ExportedModel) -> int:
    """Convolutions with float weights, the nine that predict left out."""
    graph = onnx.load(model.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return sum(n.op_type == "Conv" and n.input[1] in constants for n in graph.node) - 9


@pytest.fixture(scope="module")
def job_of(tiny_exp: Path, trained: Path) -> Callable[..., QuantizeJob]:
    """Makes a job on the trained model, with a measure in place of AP."""
    exp = get_exp(tiny_exp, None)
    source = trained / "best_ckpt.pth"
    loaded = load_model(source)
    images = calibration_images(exp, 2)

    def make(output: Path, evaluate: Callable[[nn.Module], float], **settings: Any) -> QuantizeJob:
        return QuantizeJob(
            loaded=loaded,
            source_sha256=file_digest(source),
            output=output,
            settings=QuantizeSettings(method="minmax", **settings),
            size=loaded.spec.input_size,
            images=images,
            evaluate=lambda model: (evaluate(model), 0.5),
        )

    return make


def test_no_more_layers_in_float_than_it_takes(
    job_of: Callable[..., QuantizeJob], tmp_path: Path
) -> None:
    """AP rises with each of the first five layers put back."""

    def measure(model: Any) -> float:
        return 0.8 if model.info.precision == "fp32" else 0.7 + 0.02 * min(float_layers(model), 5)

    job = job_of(tmp_path / "m.onnx", measure, max_drop=0.045)
    record = job.run()
    assert record.met
    assert len(record.kept) == 3
    assert record.drop == pytest.approx(0.04)
    assert [attempt.kept for attempt in record.attempts] == [0, 1, 2, 4, 3]
    opened = open_exported(tmp_path / "m.onnx")
    assert float_layers(opened) == 3
    facts = {entry.key: entry.value for entry in onnx.load(opened.path).metadata_props}
    said = json.loads(facts["quantization"])
    assert said["float_layers"] == list(record.kept)
    assert said["ap50_95"] == {"fp32": 0.8, "int8": pytest.approx(0.76)}
    modules = dict(job.loaded.model.named_modules())
    assert all(
        isinstance(modules[layer], nn.Conv2d) for layer in record.kept if "stem." not in layer
    )


def test_where_ap_cannot_be_kept(job_of: Callable[..., QuantizeJob], tmp_path: Path) -> None:
    def measure(model: Any) -> float:
        return 0.8 if model.info.precision == "fp32" else 0.3 + 0.01 * (float_layers(model) == 2)

    old = tmp_path / "m.onnx"
    old.write_bytes(b"what was there")
    with pytest.raises(QuantizationError) as caught:
        job_of(old, measure).run()
    for words in ("from 0.8000 to 0.3100", "with 2 of", "was not written", "`keep_anyway`"):
        assert words in str(caught.value)
    assert old.read_bytes() == b"what was there"
    assert list(tree(tmp_path)) == ["m.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_both_formats_by_default_beside_the_checkpoint(
    kind: str, tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "openvino":
        pytest.importorskip("nncf", reason="needs the export extra", exc_type=ImportError)
    source = tmp_path / "own.pth"
    source.write_bytes((trained / "best_ckpt.pth").read_bytes())
    args = ("-c", source, "--format", kind, "--calibration-images", 3, "-f", tiny_exp)
    assert command(quantize.main, *args) == 0
    (output,) = (path for path in tmp_path.iterdir() if is_exported(path))
    assert output.stem == "own_int8"
    model = open_exported(output)
    assert model.info.format == kind
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 84, 5 + model.info.num_classes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-c BEST --calibration-images 100", ["100 calibration images", "has 9 with objects"]),
        ("-c BEST --max-drop 1.5", ["--max-drop", "[0, 1]", "1.5"]),
        ("-c BEST --max-drop -0.1", ["--max-drop", "[0, 1]"]),
        ("-c BEST --calibration-images 0", ["--calibration-images", "at least 1"]),
        ("-c BEST --calibration mean", ["percentile, minmax, entropy", "'mean'"]),
        ("-c BEST --format ncnn", ["--format", "ncnn"]),
        ("-c BEST --tsize 50", ["--tsize", "32", "50"]),
        ("-c BEST --tsize 96 -f EXP test_size 64,64", ["--tsize and the field test_size"]),
        ("-c BEST --calibration-images 2 -o m.xml", ["m.xml", ".onnx"]),
        ("-c BEST --calibration-images 2 -o junk.pth/m.onnx", ["cannot write into junk.pth"]),
        ("-c none.pth", ["no checkpoint at none.pth"]),
        ("-c junk.pth", ["junk.pth"]),
    ],
)
def test_quantize_refuses_wrong_input(
    line: str,
    words: list[str],
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.pth").write_bytes(b"no checkpoint")
    before = tree(tmp_path), tree(trained)
    text = line.replace("BEST", str(trained / "best_ckpt.pth")).replace("EXP", str(tiny_exp))
    recipe = () if "-f" in text.split() else ("-f", tiny_exp)
    assert command(quantize.main, *text.split(), *recipe) == 1
    err = capsys.readouterr().err
    (error,) = error_lines(err)
    assert "Traceback" not in err
    for word in words:
        assert word in error
    assert (tree(tmp_path), tree(trained)) == before


@pytest.mark.parametrize(("kind", "package"), [("onnx", "onnxruntime"), ("openvino", "nncf")])
def test_missing_packages(
    kind: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert command(quantize.main, "-c", "none.pth", "--format", kind) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert package in error
    assert re.search(rf"pip install .*\b{package}\b", error)
