"""The commands: what they write and print, what they refuse, and who imports Ultralytics."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.runs import REPO, command, error_lines
from tests.ultralytics.helpers import SIDE, make_data
from yolox import ultralytics as adapter
from yolox.pruning import PruningPlan
from yolox.tools import ultralytics_bench, ultralytics_prune, ultralytics_train
from yolox.utils.conv_kind import LayerTimer
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_params

FAST = ("--importance", "l1", "--rounds", 1, "--reconstruct", 0, "--no-latency")
IMPORTS = """
import sys
import yolox.api, yolox.jobs.prune, yolox.tools.prunmodel
import yolox.tools.bench, yolox.tools.compare, yolox.tools.report, yolox.ultralytics.exported
import yolox.tools.ultralytics_bench, yolox.tools.ultralytics_prune, yolox.tools.ultralytics_train
found = [name for name in sys.modules if name.split(".")[0] == "ultralytics"]
assert not found, found
"""


def test_prune_writes_model_plan_and_report(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "small.pt"
    args = (whole, "--data", data, "--target", "macs=0.5", "-o", output, "--eval", "--images", 2)
    assert command(ultralytics_prune.main, *args, *FAST) == 0
    said = capsys.readouterr()
    assert f"tools/ultralytics_train.py {output} data={data} epochs=100" in said.err
    assert "AP50-95" in said.out
    record = json.loads(output.with_suffix(".report.json").read_text())
    before, after = record["report"]["macs"]
    assert after / before == pytest.approx(0.5, abs=0.03)
    labels = [stage["label"] for stage in record["stages"]]
    assert labels == ["before", "cut", "cut and compensated"]
    assert all(stage["ap50_95"] is not None for stage in record["stages"])
    assert adapter.is_pruned(adapter.read_detector(output))
    plan = output.with_suffix(".plan.json")
    again = tmp_path / "again.pt"
    assert command(ultralytics_prune.main, whole, "--plan", plan, "-o", again, *FAST[4:]) == 0
    assert json.loads(again.with_suffix(".plan.json").read_text()) == json.loads(plan.read_text())
    spared = ("--ignore", "model.9.cv1.*", "--overwrite")
    words = (whole, "--plan", plan, "-o", again, *FAST[4:], *spared)
    assert command(ultralytics_prune.main, *words, "--dry-run") == 0
    plans = [PruningPlan.load(file).removed for file in (plan, again.with_suffix(".plan.json"))]
    assert plans[0].keys() - plans[1].keys() == {"model.9.cv1.conv"}


def test_list_and_bench_print_tables(
    whole: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(ultralytics_prune.main, whole, "--mode", "list") == 0
    assert "model.2.cv1.conv" in capsys.readouterr().out
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert command(ultralytics_bench.main, whole, pruned, "--threads", 1) == 0
    out = capsys.readouterr().out
    assert "whole" in out
    assert "pruned" in out
    assert "onnxruntime" in out


def test_a_latency_is_met_in_their_exported_file(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters stand in for times, which no test can rest on."""
    from yolox.jobs import prune_latency as latency
    from yolox.ultralytics import clock

    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    exported: list[Path] = []

    def export(path: Path, form: str, size: tuple[int, int]) -> Path:
        exported.append(path)
        assert (form, size) == ("onnx", (SIDE, SIDE))
        return path.with_suffix(".onnx")

    def time(self: object, works: list[Path]) -> list[float]:
        files = [torch.load(path.with_suffix(".pt"), weights_only=False) for path in works]
        return [count_params(file["model"]) / 1e3 for file in files]

    def layer_timer(*_: object, **__: object) -> LayerTimer:
        return lambda kind, pairs: [kind.kernel[0] ** 2 * i * o / 1e3 for i, o in pairs]

    monkeypatch.setattr(clock, "export", export)
    monkeypatch.setattr(clock, "open_file", lambda path, image, settings: path)
    monkeypatch.setattr(clock.DetectorClock, "time", time)
    monkeypatch.setattr(latency, "layer_timer", layer_timer)
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "fast.pt"
    layers = ("--mode", "layer", "--layers", "model.8.*", "model.9.*")
    args = (whole, "--target", "latency=0.9", *layers, "--round-to", 8, "-o", output, *FAST[:-1])
    assert command(ultralytics_prune.main, *args) == 0
    record = json.loads(output.with_suffix(".report.json").read_text())
    parent, result = (record["latency"][key] for key in ("parent_ms", "result_ms"))
    assert result / parent == pytest.approx(0.9, abs=0.05)
    assert len(exported) > 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("missing_one.pt",), "no file"),
        (("{whole}", "--eval"), "--data"),
        (("{whole}", "--target", "macs=0.5"), "needs real images"),
        (("{whole}", "-o", "small.onnx", "--importance", "l1"), ".pt"),
        (("{whole}", "-o", "{whole}", "--importance", "l1"), "model to prune"),
        (("{whole}", "--data", "{other}", "--importance", "l1"), "3 classes"),
        (("{whole}", "--data", "nowhere.yaml", "--importance", "l1"), "nowhere.yaml"),
        (
            ("{whole}", "--importance", "l1", "--ignore", "backbone.*"),
            "ultralytics_prune.py MODEL --mode list",
        ),
        (("{whole}", "--importance", "l1", "--runtime", "ncnn"), "onnxruntime, openvino"),
    ],
)
def test_mistakes_end_in_one_line(
    args: tuple[str, ...],
    text: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other" / "data.yaml"
    if "{other}" in args:
        make_data(other.parent, names=("one", "two"), images=2)
    words = [word.format(whole=whole, other=other) for word in args]
    if "-o" not in words:
        words += ["-o", "small.pt"]
    assert command(ultralytics_prune.main, *words) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert text in line
    assert not list(tmp_path.glob("small*"))


def test_another_version_or_none_is_told_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError

    from yolox.ultralytics import installed

    for found in ("8.4.189", "8.5.0", "9.0", "8.3.250"):
        monkeypatch.setattr(installed, "version", lambda _, found=found: found)
        with pytest.raises(UserError, match=rf"{found} is installed: pip install"):
            adapter.require_ultralytics()

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installed, "version", missing)
    assert command(ultralytics_train.main, "model.pt") == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert 'pip install "ultralytics>=8.4.190,<8.5"' in line


def test_the_licence_is_told_once_to_a_user(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "cache"))
    told = []
    for _ in range(2):
        assert command(ultralytics_prune.main, whole, "--mode", "list") == 0
        told.append("AGPL" in capsys.readouterr().err)
    assert told == [True, False]
    (tmp_path / "file").touch()
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "file"))
    for _ in range(2):  # nothing can be remembered there
        assert command(ultralytics_prune.main, whole, "--mode", "list") == 0
        assert "AGPL" in capsys.readouterr().err


def test_prune_replaces_only_what_it_cut_from_the_same_model(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (whole, "--target", "macs=0.8", *FAST)
    output = tmp_path / "small.pt"
    for _ in range(2):
        assert command(ultralytics_prune.main, *args, "-o", output) == 0
    cut = torch.load(output, weights_only=False)
    trained, other = tmp_path / "trained.pt", tmp_path / "other.pt"
    del cut["pruned_from_sha256"]  # which their trainer does not write
    torch.save(cut, trained)
    shutil.copy(whole, other)
    for path in (trained, other):
        before = path.read_bytes()
        capsys.readouterr()
        assert command(ultralytics_prune.main, *args, "-o", path) == 1
        (line,) = error_lines(capsys.readouterr().err)
        assert f"{path} already exists" in line
        assert "--overwrite" in line
        assert path.read_bytes() == before
    assert command(ultralytics_prune.main, *args, "-o", other, "--overwrite") == 0
    assert adapter.is_pruned(adapter.read_detector(other))
    less = (whole, "--target", "macs=0.9", *FAST, "-o", output)
    assert command(ultralytics_prune.main, *less) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert f"{output} already exists, pruned from {whole} with another --target" in line
    assert command(ultralytics_prune.main, *less, "--overwrite") == 0
    adapter.save_detector(adapter.read_detector(whole), tmp_path / "base.pt")  # of another date
    assert command(ultralytics_prune.main, tmp_path / "base.pt", *less[1:]) == 1
    assert f"was not pruned from {tmp_path / 'base.pt'} as it is" in capsys.readouterr().err


def test_flags_in_place_of_their_settings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(ultralytics_train.main, "best.pt", "--data", "my.yaml", "--epochs", 3) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "--data my.yaml --epochs 3" in line
    assert "as data=my.yaml" in line


@pytest.mark.parametrize("module", ["prunmodel", "train", "eval", "export", "demo", "quantize"])
def test_our_own_commands_name_those_that_take_their_files(
    module: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["yolox"])
    main = importlib.import_module(f"yolox.tools.{module}").main
    recipe = ("-n", "yolox-nano") if module != "demo" else (tmp_path,)
    assert command(main, "-c", whole, *recipe) == 1
    (line,) = error_lines(capsys.readouterr().err)
    for part in (str(whole), "yolox ultralytics prune", "yolox ultralytics train", "yolo val"):
        assert part in line
    assert not list(tmp_path.iterdir())


def test_an_unsafe_ultralytics_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ultralytics

    adapter.require_ultralytics(safely=True)
    monkeypatch.setattr(ultralytics.utils, "SAFE_LOAD", False)
    with pytest.raises(UserError, match="ULTRALYTICS_SAFE_LOAD"):
        adapter.require_ultralytics(safely=True)


def test_nothing_else_imports_ultralytics() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_the_page_is_right(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPO / "docs" / "ultralytics.md").read_text(encoding="utf-8")
    lines = re.findall(r"^yolox ultralytics (\w+) ([^#\n]*)", page, re.M)
    assert {name for name, _ in lines} == {"prune", "train", "bench"}
    for name, rest in lines:
        make_parser = importlib.import_module(f"yolox.tools.flags.ultralytics_{name}").make_parser
        make_parser().parse_args(shlex.split(rest))
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    monkeypatch.chdir(tmp_path)
    shutil.copy(whole, "best.pt")
    shutil.copy(data, "my.yaml")
    small = f"epochs=1, imgsz={SIDE}, plots=False, project={str(tmp_path / 'runs')!r}"
    exec(compile(block.replace("epochs=100", small), "ultralytics.md", "exec"), {})
    (trained,) = (tmp_path / "runs").rglob("best.pt")
    assert adapter.is_pruned(adapter.read_detector(trained))
