"""What the README shows in Python runs as it stands, on the built-in data at a small setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.runs import REPO


def test_readme_python_runs_as_it_stands(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    (block,) = [b for b in blocks(REPO / "README.md") if b.language == "python"]
    exec(compile(block.text, "README.md", "exec"), {"__name__": "__main__"})
    assert (desk / "model.onnx").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert 0 <= float(lines[0]) <= 1
    assert len([line for line in lines if line.startswith("photos")]) == 12
