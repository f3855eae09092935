"""The notebook runs, at a small setting, and what is committed of it is complete and small."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import REPO

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


def test_committed_outputs_are_small_and_say_nothing_of_a_machine(cells: list[Any]) -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    for cell in cells:
        for output in cell["outputs"]:
            for kind, value in output.get("data", {}).items():
                if kind.startswith("image/"):
                    assert len(base64.b64decode(value)) < 40_000
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "/tmp/", "/work/") if word in text]


def _kinds(cells: list[Any]) -> set[str]:
    return {kind for c in cells for o in c.get("outputs", ()) for kind in o.get("data", ())}
