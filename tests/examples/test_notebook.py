"""The notebook runs, at a small setting, and what is committed of it is complete and small."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs import REPO

# A path from the root on, which only a machine has; not the end of an address or of an HTML tag.
ABSOLUTE = re.compile(r"(?<![\w.:/<\\-])/[A-Za-z_][\w.-]*/[\w./-]*")
NOTEBOOK = REPO / "examples" / "quickstart.ipynb"
SMALL = """\
IMAGES, EPOCHS, RATIOS, CHOSEN = 20, 1, (0.5,), 0.5
OUTPUT = "out"
"""


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    """The notebook's cells of code, as they are committed."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for package in ("ipykernel", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    settings.source = SMALL
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    assert (tmp_path / "out" / "notebook" / "model.onnx").is_file()
    assert _kinds(notebook.cells) >= {"image/jpeg", "image/png", "text/html"}


def test_committed_outputs_are_complete(cells: list[Any]) -> None:
    order = [cell["execution_count"] for cell in cells]
    assert order == list(range(1, len(cells) + 1))
    assert _kinds(cells) >= {"image/jpeg", "image/png", "text/html"}
    assert not [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"]
    assert not [o for cell in cells for o in cell["outputs"] if o.get("name") == "stderr"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("saved /somewhere/else/model.onnx", ["/somewhere/else/model.onnx"]),
        ("out/notebook/model.onnx, https://a.example/b/c, 3/4/5, </td></tr>", []),
    ],
)
def test_absolute_paths_are_told_from_others(text: str, found: list[str]) -> None:
    assert ABSOLUTE.findall(text) == found


def test_committed_outputs_are_small_and_say_nothing_of_a_machine(cells: list[Any]) -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    for cell in cells:
        for output in cell["outputs"]:
            for kind, value in output.get("data", {}).items():
                if kind.startswith("image/"):
                    assert len(base64.b64decode(value)) < 40_000
    assert not [path for cell in cells for path in ABSOLUTE.findall(_text(cell))]


def _text(cell: Any) -> str:
    """What a person reads in a cell: its source and its outputs but the pictures."""
    parts = [cell["source"]]  # each a string, or the list of its lines
    for output in cell["outputs"]:
        parts.append(output.get("text", ""))
        parts += [value for kind, value in output.get("data", {}).items() if "text/" in kind]
    return "\n".join("".join(part) for part in parts)


def _kinds(cells: list[Any]) -> set[str]:
    return {kind for c in cells for o in c.get("outputs", ()) for kind in o.get("data", ())}
