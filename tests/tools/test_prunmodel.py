"""Budgets, plans, compensation, reports and steps from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runs import command, differences, error_lines, read, tree
from yolox.exp import Exp
from yolox.jobs.calibration import probe
from yolox.models import load_model
from yolox.models.network_blocks import ChannelShift
from yolox.pruning import PruningPlan, prune_model, trace_groups
from yolox.pruning.blocks import find_blocks
from yolox.tools import export, prunmodel
from yolox.utils.checkpoint import file_digest
from yolox.utils.model_utils import count_macs, count_params

FAST = ("--images", 2, "--rounds", 1, "--reconstruct", 2, "--no-latency")


def prune(exp: Path, source: Path, output: Path, *args: object) -> int:
    return command(prunmodel.main, *FAST, "-c", source, "-o", output, *args, "-f", exp)


def widths(path: Path) -> dict[str, int]:
    model = load_model(path).model
    return {n: m.out_channels for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}


@pytest.fixture(scope="module")
def best(trained: Path) -> Path:
    return trained / "best_ckpt.pth"


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_a_target_is_met_by_what_is_counted(
    kind: str, tiny_exp: Path, best: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.pth"
    assert prune(tiny_exp, best, output, "--target", f"{kind}=0.6", "--reconstruct", 0) == 0
    models = [load_model(path).model for path in (best, output)]
    x = torch.zeros(1, 3, 64, 64)
    count = count_params if kind == "params" else lambda model: count_macs(model, x)[""]
    assert 0.59 <= count(models[1]) / count(models[0]) <= 0.6


@pytest.mark.parametrize("importance", ["lamp", "fisher"])
def test_a_criterion_of_weights_and_one_of_images(
    importance: str, tiny_exp: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.pth"
    args = ("--importance", importance, "--scope", "isomorphic", "--target", "macs=0.8")
    assert prune(tiny_exp, best, output, *args) == 0
    err = capsys.readouterr().err
    assert "largest threshold that empties no layer" in err
    assert ("looks at weights alone" in err) == (importance != "fisher")
    assert load_model(output).pruning[0]["plan"]["config"]["importance"] == importance


def test_ratios_by_pattern_and_layers_left_alone(
    tiny_exp: Path, best: Path, tmp_path: Path
) -> None:
    ratios = {"backbone.backbone.dark*.0.conv": 0.25, "head.*_convs.*": 0.5}
    (tmp_path / "ratios.json").write_text(json.dumps(ratios))
    words = [f"{pattern}={ratio}" for pattern, ratio in ratios.items()]
    ignore = ("--ignore", "head.cls_convs.0.*", "--round-to", 1, "--reconstruct", 0)
    outputs = [tmp_path / "a.pth", tmp_path / "b.pth"]
    assert prune(tiny_exp, best, outputs[0], "--layer-sparsity", *words, *ignore) == 0
    given = (tmp_path / "ratios.json", *ignore, "--dry-run")
    assert prune(tiny_exp, best, outputs[1], "--layer-sparsity", *given) == 0
    plans = [PruningPlan.load(output.with_suffix(".plan.json")) for output in outputs]
    assert plans[0].to_dict() == plans[1].to_dict()
    before, after = widths(best), widths(outputs[0])
    for name, width in before.items():
        ratio = 0.0
        if name.startswith("backbone.backbone.dark") and name.endswith(".0.conv"):
            ratio = 0.25
        if "_convs." in name and "cls_convs.0" not in name:
            ratio = 0.5
        assert after[name] == width * (1 - ratio), name


def test_a_plan_is_written_edited_and_replayed(tiny_exp: Path, best: Path, tmp_path: Path) -> None:
    first, plan = tmp_path / "first.pth", tmp_path / "first.plan.json"
    assert prune(tiny_exp, best, first, "--ch-sparsity", 0.3, "--dry-run") == 0
    assert list(tree(tmp_path)) == ["first.plan.json"]
    dry = plan.read_bytes()
    assert prune(tiny_exp, best, first, "--ch-sparsity", 0.3) == 0
    assert plan.read_bytes() == dry
    again = tmp_path / "again.pth"
    assert prune(tiny_exp, best, again, "--plan", plan) == 0
    assert differences(read(first)["model"], read(again)["model"]) == []

    content = json.loads(plan.read_text())
    for group in content["groups"]:
        group["remove"] = [5, 2] if group["name"] == "head.stems.0.conv" else []
    plan.write_text(json.dumps(content))
    edited = tmp_path / "edited.pth"
    assert prune(tiny_exp, best, edited, "--plan", plan, "--reconstruct", 0) == 0
    after = widths(edited)
    assert {n for n, w in widths(best).items() if after[n] != w} == {"head.stems.0.conv"}
    assert after["head.stems.0.conv"] == widths(best)["head.stems.0.conv"] - 2


def test_a_plan_that_empties_a_block_is_measured_written_and_exported(
    tiny_exp: Path, best: Path, tmp_path: Path
) -> None:
    output, plan = tmp_path / "p.pth", tmp_path / "p.plan.json"
    flags = ("--ch-sparsity", 0.3, "--allow-empty-blocks", "--importance", "l1")
    assert prune(tiny_exp, best, output, *flags, "--dry-run") == 0
    whole = load_model(best).model
    name, block = next(iter(find_blocks(whole, trace_groups(whole, probe()), probe()).items()))
    content = json.loads(plan.read_text())
    for group in content["groups"]:
        if group["name"] == name:
            group["remove"] = list(range(group["size"]))
    plan.write_text(json.dumps(content))

    assert prune(tiny_exp, best, output, "--plan", plan) == 0
    small = load_model(output)
    assert isinstance(small.model.get_submodule(block), ChannelShift)
    stages = json.loads(output.with_suffix(".report.json").read_text())["stages"]
    assert [stage["label"] for stage in stages] == ["before", "cut", "cut and compensated"]
    words = ("-c", output, "--format", "torchscript", "-o", tmp_path / "p.torchscript")
    assert command(export.main, *words, "-f", tiny_exp) == 0


def test_replaying_a_plan_without_some_layers(
    tiny_exp: Path, best: Path, pruned: Path, tmp_path: Path
) -> None:
    output, plan = tmp_path / "b.pth", pruned.with_suffix(".plan.json")
    assert prune(tiny_exp, best, output, "--plan", plan, "--ignore", "head.*") == 0
    assert all(w == widths(best)[n] for n, w in widths(output).items() if n.startswith("head."))
    kept = {name for name in PruningPlan.load(plan).removed if not name.startswith("head.")}
    assert set(PruningPlan.load(output.with_suffix(".plan.json")).removed) == kept


def test_the_report_says_what_was_done_and_what_it_bought(
    tiny_exp: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.pth"
    args = ("--ch-sparsity", 0.4, "--eval", "--latency", "-c", best, "-o", output)
    assert command(prunmodel.main, *FAST[:6], *args, "-f", tiny_exp) == 0
    report = json.loads((tmp_path / "p.report.json").read_text())
    models = [load_model(path).model for path in (best, output)]
    assert report["report"]["params"] == [count_params(model) for model in models]
    x = torch.zeros(1, 3, 64, 64)
    assert report["report"]["macs"] == [count_macs(model, x)[""] for model in models]
    layers = {layer["name"]: layer for layer in report["report"]["layers"]}
    assert {name: layer["channels"][1] for name, layer in layers.items()} == widths(output)
    assert report["file_bytes"] == [best.stat().st_size, output.stat().st_size]
    assert [stage["label"] for stage in report["stages"]] == [
        "before",
        "cut",
        "cut and compensated",
    ]
    assert all(0 <= s["ap50_95"] <= 1 and s["loss"] > 0 for s in report["stages"])
    assert all(ms > 0 for ms in report["latency_ms"])
    wanted = {"importance": "taylor", "scope": "global", "seed": 0, "reconstruct": 2}
    assert wanted.items() <= report["config"].items()
    assert report["command"].startswith("python tools/prunmodel.py --images 2")
    text = (tmp_path / "p.report.md").read_text()
    assert report["command"] in text
    assert f"{count_params(models[1]):,}" in text
    assert "cut and compensated" in capsys.readouterr().out


def test_reconstruction_keeps_the_loss_nearer_than_the_bare_cut(
    tiny_exp: Path, best: Path, tmp_path: Path
) -> None:
    args = ("--importance", "random", "--target", "macs=0.5", "--reconstruct", 9, "--images", 9)
    assert prune(tiny_exp, best, tmp_path / "p.pth", *args) == 0
    before, cut, compensated = (
        stage["loss"] for stage in json.loads((tmp_path / "p.report.json").read_text())["stages"]
    )
    assert abs(compensated - before) < abs(cut - before)


def test_without_data_weights_alone_are_enough(
    tiny_exp: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--importance", "lamp", "--no-latency", "-c", best, "-o", tmp_path / "p.pth")
    away = ("-f", tiny_exp, "data_dir", "/no/such/place")
    assert command(prunmodel.main, *args, *away) == 0
    assert "nothing is reconstructed" in capsys.readouterr().err
    before = tree(tmp_path)
    assert command(prunmodel.main, *args, "--reconstruct", 4, *away) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "/no/such/place" in error
    assert tree(tmp_path) == before


def test_steps_train_in_between_and_go_on_where_they_stopped(
    own_exp: Path, best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.pth"
    light = ("--importance", "l1", "--reconstruct", 0)
    args = (*FAST, *light, "-c", best, "-o", output, "--target", "macs=0.5")
    steps = ("--steps", 3, "--step-epochs", 1, "-f", own_exp)
    assert command(prunmodel.main, *args, *steps) == 0
    folder = tmp_path / "out" / "tiny_steps"
    x = torch.zeros(1, 3, 64, 64)
    files = [best, folder / "step_1" / "pruned.pth", folder / "step_2" / "pruned.pth", output]
    macs = [count_macs(load_model(path).model, x)[""] for path in files]
    for step, count in enumerate(macs[1:], start=1):
        assert 0.5 ** (step / 3) - 0.01 <= count / macs[0] <= 0.5 ** (step / 3)
    loaded = load_model(output)
    digests = [entry["source_sha256"] for entry in loaded.pruning]
    latest = [folder / f"step_{n}" / "latest_ckpt.pth" for n in (1, 2)]
    assert digests == [file_digest(path) for path in (best, *latest)]
    assert loaded.spec.act == "mish"

    # Stopped in the second step's training: what is done stays as it is, the rest comes again.
    content, kept = read(output), tree(folder / "step_1")
    output.unlink()
    latest[1].unlink()
    assert command(prunmodel.main, *args, *steps) == 0
    assert "continuing the run" in capsys.readouterr().err
    assert tree(folder / "step_1") == kept
    assert differences(read(output)["model"], content["model"]) == []

    before = tree(tmp_path)
    assert command(prunmodel.main, *args, "--importance", "lamp", *steps) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "differs in config" in error
    assert tree(tmp_path) == before
    (folder / "steps.json").write_text("{")
    assert command(prunmodel.main, *args, *steps) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "steps.json" in error
    assert "delete" in error


CONTRADICTIONS = [
    ("--target macs=0.5 --ch-sparsity 0.4", ["--ch-sparsity and --target", "give one"]),
    ("--plan x.json --target macs=0.5", ["--target and --plan", "give one"]),
    ("--plan x.json --layers head", ["--plan", "without --layers"]),
    ("--layer-sparsity head.*=0.5 --layers head", ["layer_sparsity", "without target and layers"]),
    ("--layer-sparsity head.*", ["PATTERN=RATIO", "head.*"]),
    ("--layer-sparsity head.*=1.5", ["layer_sparsity", "1.5"]),
    ("--layer-sparsity none.json", ["none.json", "JSON"]),
    ("--layer-sparsity nowhere.*=0.5", ["--layer-sparsity 'nowhere.*'", "nearest"]),
    ("--ignore nowhere.*", ["--ignore 'nowhere.*'", "nearest"]),
    ("--ignore *", ["nothing to prune"]),
    ("--scope uniform --per cost", ["scope uniform", "no per cost"]),
    ("--plan none.json", ["none.json"]),
    ("--target macs=0.001", ["cannot be reached", "least left", "max_sparsity"]),
    ("--target flops=0.5", ["params=FRACTION, macs=FRACTION, latency=FRACTION"]),
    ("--threads 2 --target macs=0.5", ["--threads", "--runtime", "name one"]),
    ("--spare none.json", ["every layer is sensitive", "nothing to prune"]),
    ("--steps 2 --mode layer --layers head", ["--steps", "--mode global"]),
    ("--steps 2 --plan x.json", ["--steps", "no --plan"]),
    ("--importance magic", ["invalid choice: 'magic'"]),
    ("--reconstruct -1", ["reconstruct must be at least 0"]),
]


@pytest.mark.parametrize(
    ("line", "words"), CONTRADICTIONS, ids=[line for line, _ in CONTRADICTIONS]
)
def test_what_cannot_be_is_said_in_one_line(
    line: str,
    words: list[str],
    own_exp: Path,
    best: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert prune(own_exp, best, tmp_path / "p.pth", *line.split()) == 1
    (error,) = error_lines(capsys.readouterr().err)
    for word in words:
        assert word in error
    assert tree(tmp_path) == before


def test_a_plan_of_another_model_is_refused(
    tiny_exp: Path, best: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = pruned.with_suffix(".plan.json")
    assert prune(tiny_exp, pruned, tmp_path / "p.pth", "--plan", plan) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "made for another model" in error
    assert "in the plan" in error
    assert tree(tmp_path) == {}


def test_a_gpu_too_small_for_the_refitting_leaves_it_to_the_cpu(
    tiny_exp: Path,
    best: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = [tmp_path / "a.pth", tmp_path / "b.pth"]
    assert prune(tiny_exp, best, outputs[0]) == 0
    real, calls = prune_model, []

    def small(*args: Any, **settings: Any) -> Any:
        calls.append(settings["plan"])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **settings)

    monkeypatch.setattr("yolox.jobs.prune.prune_model", small)
    assert prune(tiny_exp, best, outputs[1]) == 0
    assert calls[0] == calls[1]
    assert "is too large for cpu: on the CPU now" in capsys.readouterr().err
    assert differences(read(outputs[0])["model"], read(outputs[1])["model"]) == []


def test_the_line_for_fine_tuning_has_what_the_training_set() -> None:
    exp = Exp()
    recipe = {"batch_size": 8, "input_size": [320, 320], "max_epoch": 40}
    words = ("-b", 8, "max_epoch", 20, "input_size", "320,320")
    assert prunmodel.tuning_words(exp, recipe) == words
    assert prunmodel.tuning_words(exp, {}) == ("max_epoch", 20)
    exp.finetune_epochs = 30
    same = {"batch_size": exp.batch_size, "input_size": list(exp.input_size)}
    assert prunmodel.tuning_words(exp, same) == ()
