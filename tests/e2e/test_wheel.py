"""The built wheel, outside the tree: the command, its recipes and pages, and the Python API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import REPO


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel; what it depends on is in this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A command in a folder, by the installed package alone."""
    env = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_wheel_trains_and_detects_in_an_empty_folder(
    installed: Path, devkit: Path, tmp_path: Path
) -> None:
    script = installed / "bin" / "yolox"
    assert run(installed, tmp_path, script, "--version").stdout.strip()
    where = run(installed, tmp_path, "-c", "import yolox; print(yolox.__file__)").stdout
    assert Path(where.strip()).is_relative_to(installed)
    small = ("width", 0.125, "input_size", "64,64", "test_size", "64,64", "max_epoch", 1)
    quick = ("no_aug_epochs", 0, "warmup_epochs", 0, "data_num_workers", 0, "multiscale_range", 0)
    trained = run(installed, tmp_path, script, "train", "--data", devkit, "-b", 4, *small, *quick)
    assert trained.returncode == 0, trained.stderr
    assert "VOC layout, trained on train, evaluated on val" in trained.stderr
    best = tmp_path / "YOLOX_outputs" / "yolox_s" / "best_ckpt.pth"
    images = devkit / "VOC2007" / "JPEGImages"
    found = run(installed, tmp_path, script, "predict", "-c", best, "--path", images)
    assert found.returncode == 0, found.stderr
    assert len(list((tmp_path / "YOLOX_outputs" / "demo").iterdir())) == 12


def test_wheel_has_the_recipes(installed: Path, tmp_path: Path) -> None:
    code = (
        "import yolox; print([yolox.get_exp(f).exp_name for f in "
        "('exps/yolox_voc_s.py', 'exps/default/yolox_nano.py')])"
    )
    done = run(installed, tmp_path, "-c", code)
    assert done.stdout == "['yolox_voc_s', 'yolox_nano']\n", done.stderr
