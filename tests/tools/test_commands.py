"""The commands that succeed: what they print and write."""

from __future__ import annotations

import json
import re
import shutil
from argparse import ArgumentParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.runs import command, differences, error_lines, read, tree
from yolox.models import load_model
from yolox.pruning import PruningPlan, trace_groups
from yolox.tools import cli, compare, demo, eval, prunmodel, train
from yolox.utils.checkpoint import file_digest
from yolox.utils.errors import UserError


def test_status_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    def mend(_: object) -> None:
        raise UserError("mend this")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def bug(_: object) -> None:
        raise ValueError("a bug keeps its traceback")

    assert cli.run(lambda _: None, ArgumentParser, []) == 0
    assert cli.run(mend, ArgumentParser, []) == 1
    assert "ERROR   mend this" in capsys.readouterr().err
    assert cli.run(interrupt, ArgumentParser, []) == 130
    with pytest.raises(ValueError, match="a bug"):
        cli.run(bug, ArgumentParser, [])
    with pytest.raises(SystemExit) as caught:
        cli.entry(mend, ArgumentParser)  # type: ignore[arg-type]
    assert caught.value.code == 1


def test_a_shorter_run_has_fewer_epochs_without_mosaic(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = tiny_exp.read_text().replace("= 2, 1, 1", "= 30, 15, 1")
    file = tmp_path / "long.py"
    file.write_text(exp)
    for start, told in (
        ((), "no_aug_epochs is 0, as max_epoch is 2"),
        (("-c", pruned), "fine-tuning recipe: 2 epochs, the last 2 without mosaic"),
    ):
        assert command(train.main, "-f", file, *start, "output_dir", tmp_path, "max_epoch", 2) == 0
        assert told in capsys.readouterr().err
    assert command(train.main, "-f", file, "max_epoch", 2, "no_aug_epochs", 15) == 1
    assert "no_aug_epochs must be from 0 to max_epoch 2: 15" in capsys.readouterr().err


FAST = ("--importance", "l1", "--reconstruct", 0, "--no-latency", "--images", 2)


def _prune(exp: Path, source: Path, output: Path, *args: object) -> int:
    return command(prunmodel.main, *FAST, "-c", source, "-o", output, *args, "-f", exp)


def test_save_writes_structure_and_weights_only(
    tiny_exp: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "deep" / "whole.pth"
    latest = trained / "latest_ckpt.pth"
    assert _prune(tiny_exp, latest, output, "--mode", "save") == 0
    assert list(tree(tmp_path)) == ["deep/whole.pth"]
    content, source = read(output), read(latest)
    assert "train" not in content
    assert differences(content["model"], source["model"]) == []
    assert content["spec"] == source["spec"]
    assert output.stat().st_size < latest.stat().st_size / 2


def test_save_replaces_only_the_same_model_unless_told_to(
    tiny_exp: Path, trained: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, resumable = tmp_path / "whole.pth", tmp_path / "latest.pth"
    shutil.copy(trained / "latest_ckpt.pth", resumable)
    assert _prune(tiny_exp, resumable, output, "--mode", "save") == 0
    assert _prune(tiny_exp, resumable, output, "--mode", "save") == 0
    before = tree(tmp_path)
    for source, place in ((pruned, output), (resumable, resumable)):
        capsys.readouterr()
        assert _prune(tiny_exp, source, place, "--mode", "save") == 1
        (line,) = error_lines(capsys.readouterr().err)
        assert f"{place} already exists" in line
        assert line.endswith("name another file as -o, or replace it with --overwrite")
    assert tree(tmp_path) == before
    assert _prune(tiny_exp, pruned, output, "--mode", "save", "--overwrite") == 0
    assert load_model(output).is_pruned


def test_list_shows_every_prunable_convolution(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(trained)
    assert _prune(tiny_exp, trained / "best_ckpt.pth", tmp_path / "x", "--mode", "list") == 0
    out = capsys.readouterr().out
    model = load_model(trained / "best_ckpt.pth").model
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            assert (f" {name} " in out) == ("preds" not in name), name
    assert "%" in out
    assert tree(trained) == before
    assert tree(tmp_path) == {}


def test_list_names_the_other_layers_of_a_group(trained: Path) -> None:
    """A residual stage: its first layer is coupled with others, never with itself."""
    loaded = load_model(trained / "best_ckpt.pth")
    groups = trace_groups(loaded.model, torch.rand(1, 3, 64, 64))
    table = prunmodel.list_layers(loaded.model, loaded.spec.input_size, groups)
    name, _, coupled, _ = (list(column.cells) for column in table.columns)
    told = dict(zip(map(str, name), map(str, coupled), strict=True))
    assert not [layer for layer, text in told.items() if text.partition(" ")[0] == layer]
    first, second = (f"backbone.backbone.dark2.1.{part}.conv" for part in ("conv1", "m.0.conv2"))
    assert told[first] == second
    assert told[second] == first
    assert told["head.stems.0.conv"] == "–"


@pytest.mark.parametrize(
    ("args", "changed"),
    [
        (
            ["--mode", "conv", "--layers", "backbone.backbone.dark4.0.conv"],
            {"backbone.backbone.dark4.0.conv": 32},
        ),
        (
            ["--mode", "layer", "--layers", "head.reg_convs.?.0.conv", "--round-to", "4"],
            {f"head.reg_convs.{level}.0.conv": 16 for level in range(3)},
        ),
        (
            ["--mode", "conv", "--layers", "head.stems.0.conv", "--min-channels", "16"],
            {"head.stems.0.conv": 16},
        ),
    ],
)
def test_named_layers_lose_the_ratio_and_no_other(
    args: list[str], changed: dict[str, int], tiny_exp: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.pth"
    source = trained / "best_ckpt.pth"
    assert _prune(tiny_exp, source, output, "--ch-sparsity", 0.5, *args) == 0
    before = {
        n: m for n, m in load_model(source).model.named_modules() if hasattr(m, "kernel_size")
    }
    after = load_model(output)
    assert after.is_pruned
    outs = {
        name: module.out_channels
        for name, module in after.model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and module.out_channels != before[name].out_channels
    }
    assert outs == changed


def test_pruned_file_has_its_provenance_and_plan(
    pruned: Path, trained: Path, tiny_exp: Path
) -> None:
    loaded = load_model(pruned)
    (entry,) = loaded.pruning
    source = trained / "best_ckpt.pth"
    assert entry["source"] == str(source)
    assert entry["source_sha256"] == file_digest(source)
    assert entry["plan"]["config"]["ch_sparsity"] == 0.4
    plan = PruningPlan.load(pruned.with_suffix(".plan.json"))
    assert plan.to_dict() == entry["plan"]
    assert json.loads(pruned.with_suffix(".plan.json").read_text())["format"]
    assert pruned.stat().st_size < source.stat().st_size
    assert loaded.spec == load_model(source).spec


def test_pruning_twice_keeps_both_provenances(tiny_exp: Path, pruned: Path, tmp_path: Path) -> None:
    output = tmp_path / "twice.pth"
    assert _prune(tiny_exp, pruned, output, "--ch-sparsity", 0.1) == 0
    first, second = load_model(output).pruning
    assert [first] == load_model(pruned).pruning
    assert second["source_sha256"] == file_digest(pruned)


def test_pruning_is_deterministic_and_leaves_its_source_alone(
    tiny_exp: Path, trained: Path, tmp_path: Path
) -> None:
    before = tree(trained)
    args = ("--importance", "taylor", "--images", 3, "--rounds", 2, "--reconstruct", 3)
    models = []
    for name in ("a.pth", "b.pth"):
        assert _prune(tiny_exp, trained / "best_ckpt.pth", tmp_path / name, *args) == 0
        models.append(read(tmp_path / name)["model"])
    assert differences(*models) == []
    assert tree(trained) == before


def test_without_paths_prunmodel_works_in_the_exp_s_folder(
    own_exp: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "tiny"
    folder.mkdir(parents=True)
    (folder / "best_ckpt.pth").write_bytes((trained / "best_ckpt.pth").read_bytes())
    assert command(prunmodel.main, *FAST, "-f", own_exp) == 0
    assert command(prunmodel.main, "--mode", "save", "-f", own_exp) == 0
    beside = {"pruned.plan.json", "pruned.report.json", "pruned.report.md"}
    names = {"best_ckpt.pth", "pruned.pth", "whole_model.pth"} | beside
    assert {path.name for path in folder.iterdir()} == names


def test_fine_tuning_says_what_it_does(
    own_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(train.main, "-c", pruned, "-f", own_exp, "max_epoch", 1) == 0
    log = capsys.readouterr().err
    assert f"fine-tuning the pruned model of {pruned}: new optimizer and EMA" in log
    assert "activation silu → mish in 74 units" in log
    tuned = load_model(tmp_path / "out" / "tiny_finetune" / "latest_ckpt.pth")
    assert tuned.spec.act == "mish"
    assert tuned.is_pruned
    assert tuned.pruning == load_model(pruned).pruning
    assert tuned.content["channels"] == read(pruned)["channels"]
    assert any(isinstance(m, torch.nn.Mish) for m in tuned.model.modules())


@pytest.mark.parametrize("which", ["dense", "pruned"])
@pytest.mark.parametrize("flags", [[], ["--fuse"], ["--fp16"], ["--tsize", "96", "-b", "1"]])
def test_eval_prints_the_figures(
    which: str, flags: list[str], tiny_exp: Path, trained: Path, pruned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = pruned if which == "pruned" else trained / "best_ckpt.pth"
    before = tree(trained)
    assert command(eval.main, "-c", path, *flags, "-f", tiny_exp) == 0
    log = capsys.readouterr().err
    assert "COCO: AP50-95" in log
    assert "VOC 11-point: AP50-95" in log
    assert "triangle" in log
    assert tree(trained) == before


def test_compare_puts_the_files_side_by_side(
    tiny_exp: Path, trained: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (trained / "best_ckpt.pth", pruned)
    args = ("-c", *paths, "--labels", "before", "after", "--runs", 2)
    assert command(compare.main, *args, "-f", tiny_exp) == 0
    out = capsys.readouterr().out
    assert "64×64 input, batch 1" in out
    for label, path in zip(("before", "after"), paths, strict=True):
        (row,) = [line for line in out.splitlines() if f" {label} " in line]
        params = sum(p.numel() for p in load_model(path).model.parameters())
        assert f"{params:,}" in row or f"{params / 1e6:.2f}" in row
    assert command(compare.main, *args, "--no-eval", "-f", "no_such_exp.py") == 0


def test_compare_says_which_differences_are_real(
    tiny_exp: Path, trained: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("-c", trained / "best_ckpt.pth", pruned, "--labels", "before", "after", "--runs", 1)
    every = ("val_sets", "2007/trainval,2007/test")
    assert command(compare.main, *args, "--paired", 20, "-f", tiny_exp, *every) == 0
    log = capsys.readouterr().err
    assert re.search(r"after against before: AP50-95 [+-]\d+\.\d points \([+-].* to .*\): ", log)
    assert "95 % of 20 draws of the evaluation images" in log
    assert command(compare.main, *args, "--paired", "-f", tiny_exp) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "--paired resamples the evaluation images, and 3 are too few" in error


def test_demo_draws_and_leaves_its_input_alone(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = devkit / "VOC2007" / "JPEGImages"
    before = tree(devkit)
    args = ("-c", trained / "best_ckpt.pth", "--save_dir", tmp_path, "--conf", 0.0001)
    assert command(demo.main, *args, "--path", source / "demo_00000.jpg") == 0
    drawn = cv2.imread(str(tmp_path / "demo_00000.jpg"))
    original = cv2.imread(str(source / "demo_00000.jpg"))
    assert drawn.shape == original.shape
    assert np.abs(drawn.astype(int) - original).max() > 100
    log = capsys.readouterr().err
    assert any(f"{name} 0." in log for name in ("circle", "square", "triangle"))
    assert command(demo.main, *args, "--path", source) == 0
    assert len(tree(tmp_path)) == 12
    assert tree(devkit) == before


def test_demo_without_a_detection_writes_the_picture_as_it_is(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = devkit / "VOC2007" / "JPEGImages" / "demo_00001.jpg"
    best = trained / "best_ckpt.pth"
    args = ("-c", best, "--save_dir", tmp_path, "--conf", 0.999, "--path", path)
    assert command(demo.main, *args) == 0
    assert "nothing found" in capsys.readouterr().err
    drawn = cv2.imread(str(tmp_path / path.name)).astype(int)
    assert np.abs(drawn - cv2.imread(str(path))).mean() < 5


def test_train_writes_the_files_of_a_run(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"best_ckpt.pth", "latest_ckpt.pth", "train_log.txt", "tensorboard"}


def test_experiment_name_names_the_folder(own_exp: Path, tmp_path: Path) -> None:
    args = ("-expn", "mine", "-b", 3, "-o", "--fp16", "-f", own_exp, "max_epoch", 1)
    assert command(train.main, *args) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    recipe = read(tmp_path / "out" / "mine" / "latest_ckpt.pth")["recipe"]
    assert recipe["batch_size"] == 3
    assert recipe["precision"] == ("16-mixed" if torch.cuda.is_available() else "bf16-mixed")
