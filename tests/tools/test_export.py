"""The export commands: flags, files, what they say, and files in place of checkpoints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.helpers import NAMES, SIZE, images, reference, write_checkpoint
from tests.runs import command, error_lines, opinionated, tree
from yolox.export import open_exported, torchscript
from yolox.jobs.export import evenly_spread
from yolox.tools import demo, eval, export, export_onnx
from yolox.utils.checkpoint import file_digest

onnx: Any = pytest.importorskip("onnx", reason="needs the export extra", exc_type=ImportError)
for package in ("onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense checkpoint of a slim model. Not to be written to."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "slim", "relu", "dense")


def test_the_official_command_any_batch_size_and_own_names(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "m.onnx"
    line = "--dynamic --no-onnxsim --input x --output y --tsize 32 96 -o 19 --conf 0.2 --nms 0.6"
    assert command(export_onnx.main, "-c", source, "--output-name", output, *line.split()) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert "4 images: boxes differ by at most" in err
    assert list(tree(tmp_path)) == ["deep/m.onnx"]
    assert output.stat().st_mode & 0o777 == source.stat().st_mode & 0o777

    model = open_exported(output)
    info = model.info
    assert (info.input_name, info.output_name, info.input_size) == ("x", "y", (32, 96))
    assert (info.batch_size, info.decoded, info.pruned) == (None, False, False)
    assert (info.conf_threshold, info.nms_threshold) == (0.2, 0.6)
    assert info.class_names == NAMES
    assert info.checkpoint_sha256 == file_digest(source)
    proto = onnx.load(output)
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [19]
    for count in (1, 5):
        x = images(count, (32, 96))
        got = torch.from_numpy(model.run(x.numpy()))
        expected = reference(source, x, decode=False)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_by_default_the_file_goes_beside_the_checkpoint(tmp_path: Path, capsys: Capture) -> None:
    best = write_checkpoint(tmp_path, "slim", "mish", "pruned")
    for form in ("torchscript", "ncnn"):
        if form == "ncnn":
            pytest.importorskip("pnnx", reason="needs the export extra", exc_type=ImportError)
        assert command(export.main, "-c", best, "--format", form) == 0
    names = {path.name.removeprefix(best.stem) for path in tmp_path.iterdir()}
    assert names == {".pth", ".torchscript", ".ncnn.param", ".ncnn.bin", ".ncnn.json"}
    log = capsys.readouterr().err
    assert f"wrote {best.with_suffix('.torchscript')} (" in log
    assert "boxes decoded" in log
    assert len(re.findall(r" (\d+) of \1 detections are the same", log)) == 2


def test_a_large_folder_is_compared_from_its_first_image_to_its_last() -> None:
    paths = [Path(f"{number:04}.jpg") for number in range(1000)]
    some = evenly_spread(paths)
    assert len(some) == 32
    assert (some[0], some[-1]) == (paths[0], paths[-1])
    assert some == sorted(set(some))
    assert evenly_spread(paths[:32]) == paths[:32]


def test_a_file_that_computes_something_else_is_not_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The exporter is given a model with one bias moved; the reference is not."""
    deploy = torchscript.deployed

    def spoilt(*args: Any, **options: Any) -> torch.nn.Module:
        network = deploy(*args, **options)
        network.get_parameter("model.head.cls_preds.1.bias")[2] += 0.1
        return network

    monkeypatch.setattr(torchscript, "deployed", spoilt)
    old = tmp_path / "m.torchscript"
    old.write_bytes(b"what was there")
    before = tree(tmp_path)
    args = ("-c", source, "-o", old, "--batch-size", 2, "--format", "torchscript")
    assert command(export.main, *args) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "does not compute what PyTorch does" in error
    assert "scores differ by" in error
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-c none.pth", ["no checkpoint at none.pth"]),
        ("-c BEST --tsize 50", ["32", "50"]),
        ("-c BEST --tsize 64 64 64", ["--tsize", "64 64 64"]),
        ("-c BEST --output-name folder.onnx", ["folder.onnx", "is a folder"]),
        ("-c BEST --output-name BEST", ["is the checkpoint itself"]),
        ("-c BEST --output-name m.xml", ["m.xml", "ends in .onnx"]),
        ("-c BEST --opset 11", ["opset", "at least 18", "11"]),
        ("-c BEST --input a --output a", ["names that differ", "'a'"]),
        ("-c BEST --path nowhere", ["nothing to look at in nowhere"]),
        ("-c BEST --batch-size 0", ["--batch-size", "at least 1"]),
        ("-c BEST --nms-in-graph --no-decode", ["NMS in the graph needs decoded boxes"]),
        ("-c BEST --format torchscript --half --nms-in-graph", ["float32", "no operator for NMS"]),
        ("-c BEST --format ncnn --dynamic", ["one image of a fixed size"]),
        ("-c BEST --format torchscript --opset 18", ["no ONNX opset", "--opset"]),
        ("-c BEST --format tflite", ["--format", "tflite", "torchscript"]),
        ("-f none.py", ["no Exp file at none.py"]),
        ("-c BEST -f none.py", ["no Exp file at none.py"]),
        ("-c BEST test_size 64,64", ["--tsize", "leave out test_size"]),
        ("-c BEST --path bad.png", ["bad.png cannot be decoded"]),
        ("-n yolox-s test_size 64,64", ["--tsize", "leave out test_size"]),
        ("-c BEST --input in.put", ["letters, digits and _", "'in.put'"]),
    ],
)
def test_export_refuses_wrong_input(
    line: str,
    words: list[str],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "bad.png").write_text("no picture")
    before = tree(source.parent)
    assert command(export.main, *line.replace("BEST", str(source)).split()) == 1
    err = capsys.readouterr().err
    assert len(error_lines(err)) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert tree(tmp_path).keys() == {"bad.png"}
    assert tree(source.parent) == before


def test_pictures_are_those_of_the_exp_and_a_broken_one_is_left_out(
    source: Path, tiny_exp: Path, devkit: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ("-c", source, "--format", "torchscript", "-o", tmp_path / "m.torchscript")
    assert command(export.main, *words, "-f", tiny_exp) == 0
    of_exp = int(re.search(r"PyTorch on (\d+) images", capsys.readouterr().err)[1])  # type: ignore[index]
    assert of_exp > 1
    assert command(export.main, *words, "-f", tiny_exp, "data_dir", tmp_path) == 0
    log = capsys.readouterr().err
    assert "no evaluation images to compare on" in log
    assert "PyTorch on 1 image:" in log
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = next((devkit / "VOC2007" / "JPEGImages").iterdir())
    (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "zz.png").write_text("no picture")
    assert command(export.main, *words, "--path", folder) == 0
    log = capsys.readouterr().err
    assert "zz.png cannot be decoded (10 bytes): compared without it" in log
    assert "PyTorch on 2 images" in log


def test_without_a_checkpoint_the_exp_s_best_is_looked_for(own_exp: Path, capsys: Capture) -> None:
    for main in (export.main, export_onnx.main):
        assert command(main, "-f", own_exp) == 1
        assert str(Path("out") / "tiny" / "best_ckpt.pth") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("ncnn", "pnnx")]
)
def test_missing_packages_are_named_with_the_line_that_installs_them(
    form: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert command(export.main, "-c", tmp_path / "none.pth", "--format", form) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert name in error
    assert re.search(rf"pip install .*\b{name}\b", error)


@pytest.fixture(scope="module")
def deployed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports the trained model; a name is exported once."""
    folder = tmp_path_factory.mktemp("deployed")

    def make(name: str, *flags: object) -> Path:
        if not (folder / name).exists():
            words = ("-c", trained / "best_ckpt.pth", "-o", folder / name, *flags)
            assert command(export.main, *words) == 0
        return folder / name

    return make


def test_a_file_has_the_ap_of_its_checkpoint(
    deployed: Callable[..., Path], trained: Path, tiny_exp: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Also in batches larger than the file's; its report says what ran it."""
    best = opinionated(trained / "best_ckpt.pth", tmp_path / "sure.pth", (2.0, -9.0, -9.0))
    ours = tmp_path / "two.torchscript"
    words = ("--format", "torchscript", "--batch-size", 2, "--nms", 0.65)
    assert command(export.main, "-c", best, "-o", ours, *words) == 0
    capsys.readouterr()
    rules = ("--conf", 0.1, "--plots", tmp_path / "r", "-f", tiny_exp)
    figures, reports = [], []
    for path in (best, ours):
        assert command(eval.main, "-c", path, *rules) == 0
        log = capsys.readouterr().err
        figures.append([line for line in log.splitlines() if "AP50" in line])
        reports.append(json.loads((tmp_path / "r" / "metrics.json").read_text()))
    assert figures[0] == figures[1]
    assert any(re.search(r"AP50  ?0\.0*[1-9]", line) for line in figures[0]), figures[0]
    assert [report["runtime"] for report in reports] == ["torch", "torch"]
    assert reports[1]["checkpoint_sha256"] == file_digest(ours)


def test_a_file_with_nms_is_evaluated_and_says_what_it_has_dropped(
    deployed: Callable[..., Path], trained: Path, tiny_exp: Path, tmp_path: Path, capsys: Capture
) -> None:
    thresholds = ("--conf", 0.00002, "--nms", 0.65)
    file = deployed("nms.onnx", "--nms-in-graph", *thresholds)
    found = {}
    for path in (trained / "best_ckpt.pth", file):
        out = tmp_path / f"{path.suffix}.json"
        words = ("-c", path, "--save-detections", out, *thresholds, "-f", tiny_exp)
        capsys.readouterr()
        assert command(eval.main, *words) == 0
        found[path.suffix] = json.loads(out.read_text())
        assert "WARNING" not in capsys.readouterr().err
    assert len(found[".onnx"]) == len(found[".pth"]) > 10
    for ours in found[".onnx"]:
        assert any(_same(ours, theirs) for theirs in found[".pth"])
    words = ("-c", file, "--conf", 0.00001, "--nms", 0.65, "-f", tiny_exp)
    assert command(eval.main, *words) == 0
    assert "it keeps scores of 2e-05 or more" in capsys.readouterr().err


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(
        (a[key] == b[key] if key.endswith("_id") else a[key] == pytest.approx(b[key], 1e-3, 1e-6))
        for key in ("image_id", "category_id", "bbox", "score")
    )


def test_demo_draws_with_a_file(
    deployed: Callable[..., Path], devkit: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = deployed("two.torchscript", "--format", "torchscript", "--batch-size", 2)
    folder = devkit / "VOC2007" / "JPEGImages"
    line = ("-c", file, "--path", folder, "--save_dir", tmp_path, "--conf", 0.00001)
    assert command(demo.main, *line, "--tile", 64, "--overlap", 16) == 0
    assert len(list(tmp_path.iterdir())) == 12
    log = capsys.readouterr().err
    assert "circle 0." in log
    assert "nothing found" not in log


def test_demo_takes_the_thresholds_of_a_file(
    deployed: Callable[..., Path], devkit: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = deployed("own.torchscript", "--format", "torchscript", "--conf", 0.00001)
    folder = devkit / "VOC2007" / "JPEGImages"
    capsys.readouterr()
    assert command(demo.main, "-c", file, "--path", folder, "--save_dir", tmp_path) == 0
    assert "circle 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "flags", "words"),
    [
        (demo.main, "--fuse --fp16", ["--fuse and --fp16 cannot be had of"]),
        (demo.main, "--tsize 96", ["leave --tsize out", "images of 96×96", "64×64 alone"]),
        (eval.main, "--fuse", ["--fuse cannot be had of"]),
        (eval.main, "--precision bf16", ["--precision bf16"]),
        (eval.main, "--tsize 96", ["images of 96×96", "leave --tsize out", "dynamic_size"]),
        (eval.main, "--openvino-precision bf16", ["--openvino-precision is of OpenVINO's files"]),
    ],
)
def test_flags_that_make_no_sense_for_a_file(
    main: Any,
    flags: str,
    words: list[str],
    deployed: Callable[..., Path],
    tiny_exp: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    file = deployed("two.torchscript", "--format", "torchscript", "--batch-size", 2)
    more = ("--path", tmp_path) if main is demo.main else ()
    capsys.readouterr()
    assert command(main, "-c", file, *flags.split(), *more, "-f", tiny_exp) == 1
    (error,) = error_lines(capsys.readouterr().err)
    for word in words:
        assert word in error


def test_a_file_of_any_size_takes_tsize(
    deployed: Callable[..., Path], tiny_exp: Path, capsys: Capture
) -> None:
    file = deployed("any.torchscript", "--format", "torchscript", "--dynamic-size", "--no-decode")
    assert open_exported(file).info.input_size == SIZE
    assert command(eval.main, "-c", file, "--tsize", 96, "--speed", "-f", tiny_exp) == 0
    assert "speed at batch 1, 96×96, fp32: forward" in capsys.readouterr().err
