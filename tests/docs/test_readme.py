"""What the README shows runs, on the built-in data at a small setting."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import blocks
from tests.runs import REPO, command

# What the lines of command set, and what makes them short; prune and the trainings take fields.
SHORT = {
    "max_epoch": "1",
    "no_aug_epochs": "0",
    "input_size": "64,64",
    "test_size": "64,64",
    "multiscale_range": "0",
    "data_num_workers": "0",
}


@pytest.mark.slow
def test_readme_commands_run_one_after_the_other(desk: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    lines = filter(None, map(pages.command, pages.shell_lines(REPO / "README.md")))
    chain = [(module, words) for module, words in lines if module != "quickstart"]
    assert [module for module, _ in chain] == ["train", "prunmodel", "finetune", "export", "demo"]
    for module, words in chain:
        if module in ("train", "prunmodel", "finetune"):
            first = next((i for i, word in enumerate(words) if word in SHORT), len(words))
            assert {*words[first::2]} <= SHORT.keys()
            words = [*words[:first], *(word for pair in SHORT.items() for word in pair)]
        assert command(import_module(f"yolox.tools.{module}").main, *words) == 0
    assert len(list((desk / "YOLOX_outputs" / "demo").iterdir())) == 12


def test_readme_python_runs_as_it_stands(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    (block,) = [b for b in blocks(REPO / "README.md") if b.language == "python"]
    exec(compile(block.text, "README.md", "exec"), {"__name__": "__main__"})
    assert (desk / "model.onnx").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert 0 <= float(lines[0]) <= 1
    assert len([line for line in lines if line.startswith("photos")]) == 12
