"""Their files beside ours: recognised, opened in every runtime, measured and compared alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.export.helpers import write_checkpoint
from tests.runs import REPO, command, error_lines
from tests.ultralytics.helpers import NAMES, SIDE
from yolox.bench.cases import Case, open_case
from yolox.bench.guest import Guest
from yolox.export import open_exported
from yolox.jobs.report.collect import ReportSettings, gather_report
from yolox.tools import bench, compare, demo, report
from yolox.tools.guests import read_guests
from yolox.ultralytics.exported import ExportedDetector, file_of, metadata_of, predictions
from yolox.utils.errors import UserError

PACKAGES = {"onnx": "onnx", "openvino": "openvino", "ncnn": "pnnx", "torchscript": "torch"}
IMPORTS = """
import sys
from pathlib import Path
from yolox.tools.guests import read_guests
found = read_guests([Path(name) for name in sys.argv[1:]])
assert len(found) == 1, found
assert "ultralytics" not in sys.modules
"""


@pytest.fixture(scope="module")
def exported(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, ultralytics_home: Path
) -> dict[str, Path]:
    """What their exporter writes of a model, by format. Not to be written to."""
    from yolox.ultralytics.clock import export

    source = Path(shutil.copy(whole, tmp_path_factory.mktemp("exported")))
    for package in set(PACKAGES.values()):
        pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)
    return {form: export(source, form, (SIDE, SIDE)) for form in PACKAGES}


def read(path: Path) -> Guest:
    (guest,) = read_guests([path]).values()
    return guest


def test_every_format_detects_as_the_file_it_was_made_from(
    whole: Path, exported: dict[str, Path]
) -> None:
    guest = read(whole)
    assert (guest.spec.class_names, guest.spec.input_size) == (NAMES, (SIDE, SIDE))
    images = 255 * torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = guest.network()(images)
        theirs = guest.module()(images.flip(1) / 255)[0]
    torch.testing.assert_close(expected[..., :4], theirs[:, :4].transpose(1, 2))
    assert (expected[..., 4] == 1).all()
    torch.testing.assert_close(expected[..., 5:], theirs[:, 4:].transpose(1, 2))
    for form, path in exported.items():
        other = read(path)
        assert (other.spec.class_names, other.spec.input_size) == (NAMES, (SIDE, SIDE)), form
        assert (other.module(), other.batch, other.any_size) == (None, 1, False)
        found = other.network()(images)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3, msg=form)


def test_predictions_of_a_model_that_keeps_the_best_itself() -> None:
    out = torch.tensor([[[10.0, 20.0, 30.0, 60.0, 0.75, 2.0], [0, 0, 4, 4, 0.5, 0]]])
    expected = [[[20.0, 40.0, 20.0, 40.0, 1, 0, 0, 0.75], [2, 2, 4, 4, 1, 0.5, 0, 0]]]
    assert predictions(out, 3, keeps=True).tolist() == expected
    for shape, keeps in (((1, 6, 9), False), ((1, 9, 7), True), ((7, 9), False)):
        with pytest.raises(UserError, match="columns for 3 classes"):
            predictions(torch.zeros(shape), 3, keeps=keeps)


def test_bench_times_theirs_beside_ours(
    whole: Path, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_checkpoint(tmp_path, "slim", "relu", "dense")
    files = (own, whole, exported["openvino"], exported["torchscript"])
    output = tmp_path / "bench.json"
    flags = ("--runs", 1, "--warmup", 0, "--threads", 1, "--no-memory", "--json", output)
    few = ("--runtimes", "torch", "onnxruntime", "--tsize", SIDE)
    assert command(bench.main, *files, *flags, *few) == 0
    content = json.loads(output.read_text())
    rows = {(row["label"], row["runtime"]) for row in content["measurements"]}
    openvino, script = exported["openvino"].name, exported["torchscript"].name
    assert rows == {
        (own.name, "torch"), (own.name, "onnxruntime"), ("whole.pt", "torch"),
        ("whole.pt", "onnxruntime"), (openvino, "openvino"), (script, "torch"),
    }  # fmt: skip
    figures = {model["label"]: model for model in content["models"]}
    assert figures["whole.pt"]["params"] > 0 < figures["whole.pt"]["macs"]
    assert figures[openvino]["params"] is figures[openvino]["pruned"] is None
    assert figures["whole.pt"]["pruned"] is False
    capsys.readouterr()
    words = (exported["onnx"], "--tsize", 96, *flags)
    assert command(bench.main, *words) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert f"takes {SIDE}×{SIDE} alone, not 96×96" in line


@pytest.mark.slow
def test_memory_of_theirs_is_measured_in_a_process_of_its_own(
    whole: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    from yolox.bench.plan import BenchSettings, make_cases, read_subjects

    paths = [whole, exported["onnx"]]
    subjects = read_subjects(paths, guests=read_guests(paths))
    settings = BenchSettings(runtimes=("torch",), threads=(1,), batches=(1,), size=(SIDE, SIDE))
    for subject, case in make_cases(subjects, settings, tmp_path):
        memory = subject.memory(case)
        assert 0 < memory.added < memory.peak


def test_theirs_is_timed_as_ours_is(whole: Path, tmp_path: Path) -> None:
    """Copies to the device and back are no part of a run of PyTorch."""
    own = write_checkpoint(tmp_path, "slim", "relu", "dense")
    guest = read_guests([whole])[whole]
    image = np.zeros((2, 3, SIDE, SIDE), np.float32)
    cases = [
        Case(path=path, runtime="torch", threads=1, batch=2, size=(SIDE, SIDE), device="cpu")
        for path in (own, whole)
    ]
    for entry in (open_case(cases[0]), guest.open(cases[1])):
        images = entry.load(image)
        assert isinstance(images, torch.Tensor)
        assert images.device == entry.place == entry.queue
        output = entry.run(images)
        assert isinstance(output, torch.Tensor)
        assert len(entry.finish(output, 0.1, 0.5)) == 2


def test_report_puts_theirs_before_and_after(
    whole: Path, pruned: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report.html"
    words = ("-c", whole, pruned, "-o", output, "--data", data, "--images", 1)
    assert command(report.main, *words) == 0
    page = output.read_text(encoding="utf-8")
    for part in ("pruned.pt compared with whole.pt", "AP50-95", "model.8.m.0.cv1.conv", "budget"):
        assert part in page
    paths = [whole, pruned]
    found = gather_report(paths, None, ReportSettings(), read_guests(paths))
    before, after = found.models
    assert after.macs / before.macs == pytest.approx(0.5, abs=0.03)
    assert ("budget", "50 % of the MACs") in {(fact.name, fact.value) for fact in found.asked}
    assert any(bar.after < bar.before for bar in found.layers)


def test_compare_takes_theirs(
    whole: Path, pruned: Path, exported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(compare.main, "-c", whole, pruned, "--no-eval", "--runs", 1) == 0
    out = capsys.readouterr().out
    assert "whole.pt" in out
    assert "pruned.pt" in out
    assert command(compare.main, "-c", exported["onnx"], "--no-eval") == 1
    assert "bench.py" in capsys.readouterr().err


def test_ours_are_no_guests_and_exports_need_no_ultralytics(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    own = write_checkpoint(tmp_path, "slim", "relu", "dense")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    others = (own, broken, tmp_path / "missing.xml", tmp_path)
    words = [sys.executable, "-c", IMPORTS, *map(str, (exported["torchscript"], *others))]
    run = subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPO)
    assert run.returncode == 0, run.stderr


def test_exports_that_cannot_be_measured_are_told(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    path = file_of(exported["openvino"])
    facts = metadata_of(path)
    assert facts is not None
    for wrong, text in (
        ({"task": "segment"}, "is for segment"),
        ({"channels": 1}, "in 1 channels"),
        ({"names": {0: "a", "b": "c"}}, "metadata are wrong"),
        ({"imgsz": [640]}, "metadata are wrong"),
    ):
        with pytest.raises(UserError, match=text):
            ExportedDetector(path, {**facts, **wrong})
    # A program that would do something else is not run.
    evil = tmp_path / "evil.torchscript"
    with zipfile.ZipFile(exported["torchscript"]) as archive, zipfile.ZipFile(evil, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".py"):
                content = content.replace(b"torch.silu", b"torch.save")
            copy.writestr(name, content)
    with pytest.raises(UserError, match="was not run"):
        read(evil).network()


def test_other_commands_say_what_takes_an_export_of_theirs(
    exported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in map(file_of, exported.values()):
        with pytest.raises(UserError, match=r"by Ultralytics: .* `yolox\.jobs\.report`"):
            open_exported(path)
    assert command(demo.main, "-c", exported["onnx"], "photos") == 1
    err = capsys.readouterr().err
    assert "bench.py measures its speed" in err
    assert "report.py its AP" in err
