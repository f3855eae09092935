"""What is finished is not written over by something else, unless that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import yolox
from tests.runs import command, error_lines, read, tree
from yolox.exp import Exp, get_exp
from yolox.jobs.prune import require_own
from yolox.models import load_model
from yolox.pruning import PruningError, PruningPlan
from yolox.tools import prunmodel, train
from yolox.utils.checkpoint import save_checkpoint

CUT = ("--importance", "l1", "--reconstruct", 0, "--no-latency")


def test_a_pruned_file_of_another_source_is_kept(
    own_exp: Path,
    trained: Path,
    pruned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Path(shutil.copy(pruned, tmp_path / "pruned.pth"))
    best, latest = trained / "best_ckpt.pth", trained / "latest_ckpt.pth"
    require_own(output, best, load_model(best))  # of the same source
    before = tree(tmp_path)
    line = (*CUT, "-f", own_exp, "-c", latest, "-o", output)
    assert command(prunmodel.main, *line) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"{output} already exists, pruned from {best}, not from {latest} as it is now" in error
    assert "as -o, or replace it with --overwrite" in error
    assert tree(tmp_path) == before
    # A second cut of what was pruned already is of the pruned file, not of the first.
    with pytest.raises(PruningError, match="another file"):
        require_own(output, output, load_model(output))
    assert command(prunmodel.main, *line, "--overwrite") == 0
    assert read(output)["pruning"][-1]["source"] == str(latest)


def test_a_pruned_file_of_other_settings_is_kept(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, output = trained / "best_ckpt.pth", tmp_path / "pruned.pth"
    line = (*CUT, "-f", own_exp, "-c", best, "-o", output)
    for _ in range(2):  # the very same may be repeated
        assert command(prunmodel.main, *line, "--target", "macs=0.8") == 0
    before = tree(tmp_path)
    capsys.readouterr()
    assert command(prunmodel.main, *line, "--target", "macs=0.7", "--ignore", "head.*") == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"{output} already exists, pruned from {best} with another --target, --ignore: " in error
    options = {"importance": "l1", "time_it": False, "target": "macs=0.7"}
    with pytest.raises(PruningError, match=r"with another `target`.* `overwrite=True`"):
        yolox.prune(best, output=output, **options)
    assert tree(tmp_path) == before
    plan = output.with_name("other.plan.json")
    other = PruningPlan.load(output.with_suffix(".plan.json"))
    other.removed.popitem()
    other.save(plan)
    assert command(prunmodel.main, *line, "--plan", plan) == 1
    assert "with another --plan: " in capsys.readouterr().err
    assert command(prunmodel.main, *line, "--target", "macs=0.7", "--overwrite") == 0
    assert read(output)["pruning"][0]["plan"]["config"]["target"] == "macs=0.7"
    written = read(output)  # as of a version that did not know of one of the settings
    written["pruning"][0]["plan"]["config"].pop("allow_empty_blocks")
    save_checkpoint(output, written)
    assert command(prunmodel.main, *line, "--target", "macs=0.7") == 0


def test_a_file_that_is_no_pruned_one_is_kept(trained: Path, tmp_path: Path) -> None:
    source = trained / "best_ckpt.pth"
    options = {"importance": "l1", "time_it": False}
    for other in (b"notes", (trained / "latest_ckpt.pth").read_bytes()):
        output = tmp_path / "pruned.pth"
        output.write_bytes(other)
        with pytest.raises(PruningError, match=r"another file, not from .* `overwrite=True`"):
            yolox.prune(source, output=output, **options)
        assert output.read_bytes() == other
    yolox.prune(source, output=output, overwrite=True, **options)
    assert read(output)["pruning"]


def test_a_finished_fine_tuning_is_kept(
    own_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "tiny_finetune"
    lines = ("--precision", "fp32", "-f", own_exp, "-c", pruned)

    def tune(*words: object) -> int:
        return command(train.main, *lines, *words, "no_aug_epochs", 0)

    assert tune("max_epoch", 1) == 0
    log = (folder / "train_log.txt").read_text(encoding="utf-8")
    assert log.count("fine-tuning recipe: 1 epochs") == 1  # said before the run had its folder
    first = read(folder / "latest_ckpt.pth")["model"]
    assert tune("max_epoch", 1) == 0  # the very same, which gives the same
    again = read(folder / "latest_ckpt.pth")["model"]
    assert all((first[name] == again[name]).all() for name in first)
    before = tree(folder)
    capsys.readouterr()
    assert tune("max_epoch", 1, "momentum", 0.8) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"{folder} holds a finished fine-tuning that differs in momentum: " in error
    assert "-expn tiny_finetune_2" in error
    assert "--overwrite" in error
    assert tree(folder) == before
    assert tune("--overwrite", "max_epoch", 1, "momentum", 0.8) == 0


def test_an_unfinished_fine_tuning_may_be_begun_anew(
    own_exp: Path, pruned: Path, tmp_path: Path
) -> None:
    """It is told, as for every run, and --resume is there for who wants it."""
    folder = tmp_path / "out" / "tiny_finetune"
    options = {"checkpoint": pruned, "precision": "fp32"}

    def exp(**fields: object) -> Exp:
        return get_exp(own_exp, no_aug_epochs=0, **fields)

    yolox.train(exp(max_epoch=1), **options)
    latest = read(folder / "latest_ckpt.pth")
    latest["recipe"]["max_epoch"] = 5  # as if it had been stopped after the first of five
    shutil.rmtree(folder)
    folder.mkdir()
    save_checkpoint(folder / "latest_ckpt.pth", latest)
    assert yolox.train(exp(max_epoch=1, momentum=0.8), **options).best_checkpoint.is_file()
