"""tools/bench.py from its command line: tables, JSON, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.runs import command, error_lines, tree
from yolox.models import load_model
from yolox.tools import bench
from yolox.utils.checkpoint import file_digest
from yolox.utils.model_utils import count_macs, count_params

QUICK = ("--runs", 3, "--warmup", 0, "--threads", 1, "--no-memory")


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line that the command ends with."""
    assert command(bench.main, *args) == 1
    (line,) = error_lines(capsys.readouterr().err)
    return line


def test_two_checkpoints_on_two_runtimes(
    trained: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, output = trained / "best_ckpt.pth", tmp_path / "bench.json"
    before = tree(trained)
    capsys.readouterr()
    status = command(
        bench.main, best, pruned, "--labels", "before", "after", "--runtimes", "torch",
        "onnxruntime", *QUICK, "--conf", 0, "--nms", 1, "--json", output,
    )  # fmt: skip
    assert status == 0
    assert tree(trained) == before
    printed, content = capsys.readouterr().out, json.loads(output.read_text())
    assert content["format"] == "yolox-bench"
    assert content["packages"]["torch"] == torch.__version__
    assert {"onnxruntime", "openvino", "ncnn"} <= content["packages"].keys()
    assert content["command"].startswith(f"python tools/bench.py {best}")
    assert content["settings"]["size"] == [64, 64]
    assert content["settings"]["runs"] == 3
    _check_models(content["models"], (best, pruned))
    rows = {(row["label"], row["runtime"]): row for row in content["measurements"]}
    assert [*rows] == [
        (label, runtime) for label in ("before", "after") for runtime in ("torch", "onnxruntime")
    ]
    for (label, runtime), row in rows.items():
        _check_row(row, rows["before", runtime])
        assert row["path"] == str({"before": best, "after": pruned}[label])
        assert row["detections"] == 8 * 8 + 4 * 4 + 2 * 2  # each anchor of strides 8, 16, 32
    first = printed.splitlines()[0]
    slow = [row for row in rows.values() if row["speedup"] < 1]
    assert first.startswith("SLOWER than before, though pruned: after") == bool(slow)
    assert content["slower"] == (first if slow else "")
    median = rows["after", "onnxruntime"]["forward"]["median"]
    assert f"{median:.2f}" in printed


def _check_models(models: list[dict[str, Any]], paths: tuple[Path, Path]) -> None:
    assert [model["pruned"] for model in models] == [False, True]
    for model, path in zip(models, paths, strict=True):
        built = load_model(path).model
        assert model["params"] == count_params(built)
        assert model["macs"] == count_macs(built, torch.zeros(1, 3, 64, 64))[""]
        assert model["file_bytes"] == path.stat().st_size
        assert model["sha256"] == model["file_sha256"] == file_digest(path)


def _check_row(row: dict[str, Any], first: dict[str, Any]) -> None:
    for part in ("preprocess", "forward", "postprocess", "whole"):
        times = row[part]
        assert 0 < times["least"] <= times["median"] <= times["p90"]
        assert times["runs"] == 3
    assert row["images_per_second"] == pytest.approx(1000 / row["forward"]["median"])
    assert row["speedup"] == pytest.approx(first["forward"]["median"] / row["forward"]["median"])
    assert (row["threads"], row["batch"], row["precision"]) == (1, 1, "fp32")
    assert row["memory"] is None
    assert row["file_bytes"] > 0


def test_a_picture_and_a_size_of_one_s_own(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, output = tmp_path / "grey.png", tmp_path / "bench.json"
    cv2.imwrite(str(picture), np.full((40, 30, 3), 114, np.uint8))
    status = command(
        bench.main, trained / "best_ckpt.pth", "--runtimes", "torch", "--batch", 1, 2, *QUICK,
        "--tsize", 96, "--image", picture, "--conf", 1, "--json", output,
    )  # fmt: skip
    assert status == 0
    content = json.loads(output.read_text())
    assert content["settings"]["size"] == [96, 96]
    assert content["settings"]["image"] == str(picture)
    built = load_model(trained / "best_ckpt.pth").model
    assert content["models"][0]["macs"] == count_macs(built, torch.zeros(1, 3, 96, 96))[""]
    assert [row["batch"] for row in content["measurements"]] == [1, 2]
    assert "nothing reached a score of 1, so NMS had nothing to do" in capsys.readouterr().out
    assert content["slower"] == ""


def test_without_a_compiler_the_others_go_on(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> object:
        def call(*_: object) -> object:
            raise RuntimeError("No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    args = (trained / "best_ckpt.pth", *QUICK, "--batch", 1, 2)
    assert command(bench.main, *args, "--runtimes", "torch.compile", "torch") == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "torch.compile" in line]
    assert told == [
        "note: torch.compile does not work here: No working C++ compiler found; it is left out"
    ]
    assert "No working C++ compiler" in refused(capsys, *args, "--runtimes", "torch.compile")


def test_all_missing_files_are_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(
        capsys, tmp_path / "a.pth", trained / "best_ckpt.pth", tmp_path / "b.onnx", *QUICK
    )
    assert str(tmp_path / "a.pth") in line
    assert str(tmp_path / "b.onnx") in line


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--labels", "a", "b"), "1 files need as many labels, all different; got ['a', 'b']"),
        (("--tsize", 64, 64, 64), "--tsize takes height and width, got 64 64 64"),
        (("--tsize", 50), "must be a multiple of 32, got 50"),
        (("--threads", 0), "must be at least 1, got 0"),
        (("--batch", 0), "must be at least 1, got 0"),
        (("--runtimes", "tflite"), "invalid choice: 'tflite'"),
        (
            ("--image", "nowhere.jpg"),
            "--image nowhere.jpg cannot be read (No such file",
        ),
        (("--runtimes", "ncnn", "--batch", 2), "ncnn runs one image at a time, not 2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    args: tuple[object, ...], told: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, trained / "best_ckpt.pth", *args)


def test_a_place_that_cannot_be_written_to_shows_before_the_work(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, trained / "best_ckpt.pth", *QUICK, "--json", tmp_path)
    assert f"cannot write {tmp_path}: it is a folder" in line
    assert capsys.readouterr().out == ""


def test_a_runtime_that_is_not_installed_is_told_with_the_line_that_installs_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not there
    line = refused(capsys, trained / "best_ckpt.pth", *QUICK, "--runtimes", "openvino")
    assert "openvino, not installed here" in line
    assert "pip install openvino" in line
