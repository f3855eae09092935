"""The programs of examples/deploy find what PyTorch finds, in a Python that has no PyTorch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import yolox
from tests.export.conftest import Checkpoint
from tests.runs import REPO

DEPLOY = REPO / "examples" / "deploy"
Run = Any

PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "undecoded": {"decode": False},
    "any batch": {"dynamic": True},
}
# What OpenCV cannot run too.
ONNX = PLAIN | {
    "batch of two": {"batch_size": 2},
    "half": {"half": True},
    "nms": {"nms": True},
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of blotches, of another aspect than the model's input."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    cv2.imwrite(str(path), cv2.resize(noise, (230, 170), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture(scope="module")
def found(checkpoint: Checkpoint, picture: Path) -> yolox.Prediction:
    """What PyTorch finds in it."""
    (prediction,) = yolox.load(checkpoint(), conf=0.3, device="cpu").predict(picture)
    assert len(prediction) >= 3
    assert len(set(prediction.class_names)) >= 2
    return prediction


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program, compiled."""
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("needs cmake and a C++ compiler")
    build = tmp_path_factory.mktemp("build")
    flags = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"]
    done = _run(["cmake", "-S", DEPLOY, "-B", build, *flags], build)
    if "FindOpenCV.cmake" in done.stderr:
        pytest.skip("needs OpenCV for C++, libopencv-dev")
    assert done.returncode == 0, done.stderr
    done = _run(["cmake", "--build", build], build)
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "with_opencv"


@pytest.fixture
def python(tmp_path: Path) -> Run:
    """Runs one of the Python programs, to which PyTorch and this package are not there."""
    for name in ("torch", "yolox"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on this device')\n")

    def run(name: str, *words: object) -> Any:
        return _run([sys.executable, DEPLOY / name, *words], tmp_path)

    return run


def _run(line: list[Any], folder: Path) -> Any:
    words = [str(word) for word in line]
    paths = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(words, cwd=folder, env=paths, capture_output=True, text=True, timeout=300)


def _compare(done: Any, found: yolox.Prediction, folder: Path) -> None:
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(" ", 5) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == found.class_names
    scores, boxes = np.array([row[1] for row in rows]), np.array([row[2:] for row in rows])
    assert np.abs(scores.astype(float) - found.scores).max() < 1e-2
    assert np.abs(boxes.astype(float) - found.boxes).max() < 1
    drawn = cv2.imread(str(folder / "found.jpg"))
    assert drawn.shape[:2] == found.size


@pytest.mark.parametrize("kind", ONNX)
def test_onnxruntime_example_finds_what_we_do(
    kind: str,
    exported: Checkpoint,
    picture: Path,
    found: yolox.Prediction,
    python: Run,
    tmp_path: Path,
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file = exported("onnx", **ONNX[kind])
    _compare(python("with_onnxruntime.py", file, picture), found, tmp_path)


@pytest.mark.parametrize("decode", [True, False])
def test_ncnn_example_finds_what_we_do(
    decode: bool,
    exported: Checkpoint,
    picture: Path,
    found: yolox.Prediction,
    python: Run,
    tmp_path: Path,
) -> None:
    for package in ("ncnn", "pnnx"):
        pytest.importorskip(package)
    file = exported("ncnn", decode=decode)
    _compare(python("with_ncnn.py", file, picture), found, tmp_path)


@pytest.mark.parametrize("kind", PLAIN)
def test_opencv_in_cpp(
    kind: str,
    exported: Checkpoint,
    picture: Path,
    found: yolox.Prediction,
    program: Path,
    tmp_path: Path,
) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    file = exported("onnx", **PLAIN[kind])
    _compare(_run([program, file, picture], tmp_path), found, tmp_path)


def test_opencv_in_cpp_refuses_what_it_cannot_run(
    exported: Checkpoint, picture: Path, program: Path, tmp_path: Path
) -> None:
    other, cut = tmp_path / "other.onnx", tmp_path / "cut.onnx"
    other.write_bytes(b"")
    cut.write_bytes(exported("onnx").read_bytes()[:1000])
    for file, message in (
        (exported("onnx", nms=True), "OpenCV does not run files with NMS"),
        (exported("onnx", batch_size=2), "OpenCV runs files for one image, this is for 2"),
        (other, "does not say its input_color"),
        (cut, "ends too early"),
        (picture, "no ONNX file"),
        (tmp_path / "none.onnx", "no such file"),
    ):
        done = _run([program, file, picture], tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not done.stdout


def test_python_refuses_what_it_cannot_run(python: Run, tmp_path: Path, picture: Path) -> None:
    pytest.importorskip("onnxruntime")
    for words, message in (
        ((), "usage"),
        ((tmp_path / "none.onnx", picture), "no such file"),
        ((picture, tmp_path / "none.png"), "no image that OpenCV can read"),
    ):
        done = python("with_onnxruntime.py", *words)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1 or "imread" in done.stderr
