"""The programs of examples run as their first line says."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.runs import REPO, command
from yolox.models import load_model
from yolox.tools import check_data, train

EXAMPLES = REPO / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs one from an empty folder, and gives what it prints."""
    monkeypatch.chdir(tmp_path)

    def script(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_prune_your_own_module(run) -> None:
    out = run("prune_your_own_module.py")
    before, after = map(int, re.findall(r"MACs (\d+) → (\d+)", out)[0])
    assert after <= 0.42 * before
    losses = [float(number) for number in re.findall(r"\d+\.\d{4}", out)]
    assert max(losses) < 0.1  # log 4 is what guessing has
    assert "restored: True" in out


def test_custom_criterion(run, tmp_path: Path) -> None:
    out = run("custom_criterion.py")
    before, after = map(int, re.findall(r"MACs (\d+) → (\d+)", out)[0])
    assert 0.4 * before < after < 0.52 * before
    assert load_model(tmp_path / "YOLOX_outputs/custom_criterion/pruned.pth").is_pruned


def test_custom_criterion_of_a_checkpoint(run, trained: Path, tmp_path: Path) -> None:
    run("custom_criterion.py", trained / "best_ckpt.pth")
    pruned = load_model(tmp_path / "YOLOX_outputs/custom_criterion/pruned.pth")
    assert pruned.is_pruned
    assert pruned.spec == load_model(trained / "best_ckpt.pth").spec


def test_custom_reader(run, tmp_path: Path) -> None:
    out = run("custom_reader.py")
    best = tmp_path / "YOLOX_outputs" / "custom_reader" / "best_ckpt.pth"
    assert str(best.relative_to(tmp_path)) in out
    assert load_model(best).spec.class_names == ("circle", "square", "triangle")
    reader = EXAMPLES / "custom_reader.py"
    assert command(check_data.main, "-f", reader) == 0
    assert command(train.main, "-f", reader, "max_epoch", 1, "no_aug_epochs", 0) == 0
    labels = tmp_path / "datasets" / "custom_reader" / "train.csv"
    labels.write_text(labels.read_text().replace("circle", "cirlce", 1))
    assert command(train.main, "-f", reader, "class_names", "circle,square,triangle") == 1


def test_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb"), *EXAMPLES.glob("deploy/*.*")]
    assert len(files) > 5
    assert [file.name for file in files if f"`{file.relative_to(EXAMPLES)}`" not in text] == []
