"""The Python of every page runs, each block by itself, on the built-in data."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Block, blocks, name
from tests.runs import REPO

_FOUND = [
    (ast.dump(ast.parse(block.text)), pytest.param(block, id=f"{name(page)}-{number}"))
    for page in PAGES
    if page.parent != REPO  # tests/docs/test_readme.py
    for number, block in enumerate(b for b in blocks(page) if b.language == "python")
]
# A translated page has the same code under other comments, which need not run twice.
PYTHON = dict(reversed(_FOUND)).values()


def test_blocks_that_are_not_run_say_why() -> None:
    marked = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    assert all(len(reason.split()) > 3 for reason in marked)
    marks = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in PAGES)
    assert marks == len(marked), "a mark stands directly above a block"


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_python_runs_as_it_stands(block: Block, desk: Path, request: pytest.FixtureRequest) -> None:
    if block.reason:
        pytest.skip(block.reason)
    if ".onnx" in block.text:
        exported = request.getfixturevalue("exported")
        for file in ("model.onnx", "pruned.onnx"):
            shutil.copy(exported, desk / file)
    if "yolox.prune(" in block.text:
        (desk / "pruned.pth").unlink()  # of other settings, which is not replaced unasked
    exec(compile(block.text, "page", "exec"), {"__name__": "__main__"})
