"""A search through the command: its record, going on, and what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.runs import command, error_lines, tree
from yolox.jobs.calibration import probe
from yolox.jobs.prune_search import image_digest
from yolox.models import load_model
from yolox.pruning import PruningPlan, apply_plan, trace_groups
from yolox.tools import prunmodel
from yolox.utils.model_utils import count_macs

FAST = ("--images", 2, "--rounds", 1, "--reconstruct", 4, "--held-back", 2, "--no-latency")


@pytest.fixture(scope="module")
def best(trained: Path) -> Path:
    return trained / "best_ckpt.pth"


def prune(exp: Path, source: Path, output: Path, *args: object) -> int:
    return command(prunmodel.main, *FAST, "-c", source, "-o", output, *args, "-f", exp)


def test_a_search_meets_the_budget_and_goes_on_where_it_stopped(
    tiny_exp: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = [tmp_path / "a.pth", tmp_path / "b.pth"]
    budget = ("--target", "macs=0.6", "--dry-run")
    assert prune(tiny_exp, best, outputs[0], *budget, "--search", 3) == 0
    assert "3 moves" in capsys.readouterr().err
    record = tmp_path / "a.search.json"
    assert json.loads(record.read_text())["progress"]["tried"] == 3
    assert prune(tiny_exp, best, outputs[0], *budget, "--search", 5) == 0
    assert "the search continues after 3 moves" in capsys.readouterr().err
    assert prune(tiny_exp, best, outputs[1], *budget, "--search", 5) == 0
    assert record.read_text() == (tmp_path / "b.search.json").read_text()
    plans = [PruningPlan.load(path.with_suffix(".plan.json")) for path in outputs]
    assert plans[0].removed == plans[1].removed
    model = load_model(best).model
    x = torch.zeros(1, 3, 64, 64)
    small = apply_plan(model, trace_groups(model, probe()), plans[0])
    assert count_macs(small, x)[""] / count_macs(model, x)[""] <= 0.6
    # Another budget is another search.
    assert (
        prune(tiny_exp, best, outputs[0], "--target", "macs=0.7", "--dry-run", "--search", 1) == 0
    )
    assert json.loads(record.read_text())["progress"]["tried"] == 1
    record.write_text("{}")
    before = tree(tmp_path)
    assert prune(tiny_exp, best, outputs[0], *budget, "--search", 1) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "a.search.json" in error
    assert "delete it" in error
    assert tree(tmp_path) == before


def test_other_images_or_labels_are_another_search() -> None:
    images, targets = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 5)
    batches = [(images, targets), (images, targets + 1)]
    others = [batches[:1], batches[::-1], [(images, targets), (images + 1, targets + 1)]]
    same = [(images.clone(), targets.clone()), (images, targets + 1)]
    assert image_digest(same) == image_digest(batches)
    assert len({image_digest(each) for each in [batches, *others]}) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--search -1", ["search must be at least 0"]),
        ("--search 2 --reconstruct 0", ["needs reconstruct and held_back"]),
        ("--search 2 --held-back 0", ["needs reconstruct and held_back"]),
        ("--search 2 --layer-sparsity head.*=0.5", ["one budget"]),
        ("--search 2 --allow-empty-blocks", ["all keep channels"]),
        ("--search 2 --target latency=0.5 --latency", ["no target in latency"]),
        ("--search 2 --plan x.json", ["--plan", "without --search"]),
        ("--search 2 --steps 2", ["--search", "without --steps"]),
    ],
)
def test_what_a_search_cannot_do_is_said_in_one_line(
    line: str,
    words: list[str],
    tiny_exp: Path,
    best: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prune(tiny_exp, best, tmp_path / "p.pth", *line.split()) == 1
    (error,) = error_lines(capsys.readouterr().err)
    for word in words:
        assert word in error
    assert tree(tmp_path) == {}
