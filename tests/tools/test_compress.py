"""One command from a checkpoint to a report; stopped anywhere, it goes on."""

from __future__ import annotations

import argparse
import inspect
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from tests.abacus import an_abacus
from tests.runs import command, error_lines, opinionated, read, tree
from yolox.exp import Exp, get_exp
from yolox.jobs.calibration import probe
from yolox.jobs.compress.pipeline import plan_compression
from yolox.jobs.compress.recipe import Recipe, origin_of
from yolox.jobs.compress.record import Record
from yolox.jobs.compress.settings import CompressSettings
from yolox.jobs.compress.stage import Stage
from yolox.jobs.compress.stages import Measurement, Processes, Training
from yolox.jobs.compress.verdict import Verdict, latency_verdict, tell_verdicts
from yolox.jobs.train import TrainOptions, official_args
from yolox.models import LoadedModel, load_model
from yolox.pruning import trace_groups
from yolox.report import ModelRow, Report
from yolox.tools import bench, compress, eval, export, prunmodel, report, sensitivity, train
from yolox.utils.checkpoint import save_checkpoint
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_params

pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)

QUICK = ("--importance", "l1", "--round-to", 1, "--epochs", 1, "--images", 4, "--threads", 1)


def stages(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compress.json").read_text())["stages"]
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("brief_compression")
def test_a_field_behind_a_list_is_told_where_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(compress.main, "--formats", "onnx", "batch_size", 8) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "'batch_size'" in line
    assert "a list ends at the next flag, so write fields of the Exp before it" in line


def test_the_whole_road_and_only_what_is_left_of_it(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = opinionated(trained / "best_ckpt.pth", tmp_path / "sure.pth", (2.0, -9.0, -9.0))
    tmp_path = tmp_path / "out"
    before = ("--sparsity", 0.001, "--sparsity-epochs", 1, "--sensitivity")
    road = (*before, "--target", "params=0.6", "--steps", 2, "--step-epochs", 1, "--distill")
    road = (*road, "--images", 2)
    formats = ("--formats", "openvino", "ncnn")  # each has a .bin
    words = ("-c", best, "-o", tmp_path, "-f", tiny_exp, *QUICK, *road, *formats)
    assert command(compress.main, *words) == 0
    shown = capsys.readouterr()
    end = shown.out[shown.out.index("Before and after") :]
    names = [line.split("│")[1].strip() for line in end.splitlines() if "│" in line]
    assert [name for name in names if name in ("before", "pruned", "after")] == [
        "before",
        "pruned",
        "after",
    ]
    assert "AP50-95" in end
    assert list(stages(tmp_path)) == [
        "sparse",
        "sensitivity",
        "pruning",
        "finetuned",
        "export to openvino",
        "AP of the openvino file",
        "export to ncnn",
        "AP of the ncnn file",
        "measurement",
        "report",
    ]
    assert read(tmp_path / "sparse" / "latest_ckpt.pth")["recipe"]["sparsity"] == 0.001
    assert read(tmp_path / "finetuned" / "latest_ckpt.pth")["recipe"]["teacher"]
    final = load_model(tmp_path / "finetuned" / "latest_ckpt.pth")
    whole = count_params(load_model(best).model)
    assert count_params(final.model) / whole == pytest.approx(0.6, abs=0.02)
    for form, runtime in (("openvino", "openvino"), ("ncnn", "ncnn")):
        metrics = json.loads((tmp_path / "eval" / form / "metrics.json").read_text())
        assert metrics["runtime"].startswith(runtime)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "python tools/prunmodel.py",
        "after, as openvino",
        "after, as ncnn",
        "after sparsity training",
        "step 1",
    ):
        assert part in page
    measured = json.loads((tmp_path / "bench.json").read_text())["measurements"]
    assert {(row["label"], row["runtime"]) for row in measured} >= {
        ("before", "torch"),
        ("after", "openvino"),
        ("after, as openvino", "openvino"),
        ("after, as ncnn", "ncnn"),
    }

    written = tree(tmp_path)
    capsys.readouterr()
    assert command(compress.main, *words) == 0
    assert capsys.readouterr().err.count("done before") == 10
    assert tree(tmp_path) == written

    # Another length of fine-tuning: the pruning stands.
    longer = ("--epochs", 2, "--no-distill", "--formats")
    assert command(compress.main, *words[:6], *QUICK, *road, *longer) == 0
    # What is no part of it any more is not told of.
    assert list(stages(tmp_path)) == [
        "sparse",
        "sensitivity",
        "pruning",
        "finetuned",
        "measurement",
        "report",
    ]
    assert tree(tmp_path)["pruned/pruned.pth"] == written["pruned/pruned.pth"]
    # And the shorter one is not lost.
    old = read(tmp_path / "finetuned_old1" / "latest_ckpt.pth")
    assert old["train"]["epoch"] == 1
    content = read(tmp_path / "finetuned" / "latest_ckpt.pth")
    assert content["train"]["epoch"] == 2
    assert "teacher" not in content["recipe"]


@pytest.mark.slow
@pytest.mark.usefixtures("brief_compression")
def test_a_latency_on_the_whole_road(
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "cache"))
    an_abacus(monkeypatch)
    large = tmp_path / "large.pth"
    content = read(opinionated(trained / "best_ckpt.pth", large, (2.0, -9.0, -9.0)))
    content["spec"]["input_size"] = [96, 96]
    save_checkpoint(large, content)
    words = ("-c", large, "-o", tmp_path / "out", "-f", tiny_exp, *QUICK, "--epochs", 1)
    words = (*words, "--target", "latency=0.8", "--runtime", "onnxruntime")
    assert command(compress.main, *words) == 0
    assert "asked for latency=0.8: the fine-tuned model takes" in capsys.readouterr().err
    tuned = load_model(tmp_path / "out" / "finetuned" / "latest_ckpt.pth")
    assert tuned.spec.input_size == (96, 96)  # the checkpoint's, not the Exp's
    (pruning,) = tuned.pruning
    assert pruning["latency"]["setting"].startswith("onnxruntime")
    assert (tmp_path / "cache" / "layer_latencies" / "onnxruntime_1.json").is_file()
    assert (tmp_path / "out" / "export" / "onnx" / "model.onnx").is_file()
    assert "latency=0.8" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("brief_compression")
def test_killed_in_the_midst_of_training_it_ends_as_if_it_had_not_been(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process itself, and with a path that is written in another way the second time."""

    def enough(*_: object, **__: object) -> None:
        raise UserError("enough")

    monkeypatch.setattr(Measurement, "run", enough)

    def words(folder: Path) -> list[str]:
        flags = ("-c", trained / "best_ckpt.pth", "-o", folder, "--formats", "--epochs", 4)
        return [str(word) for word in (*flags, *QUICK[:4], *QUICK[6:], "-f", tiny_exp)]

    killed, straight = tmp_path / "killed", tmp_path / "straight"
    line = [sys.executable, "tools/compress.py", *words(killed)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (killed / "finetuned" / "latest_ckpt.pth").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert "seconds" not in stages(killed)["finetuned"]
    other = (*words(killed / ".." / "killed"), "print_interval", 3)
    assert command(compress.main, *other) == 1
    assert not list(killed.glob("*_old*"))
    assert command(compress.main, *words(straight)) == 1
    ends = [read(folder / "finetuned" / "latest_ckpt.pth") for folder in (killed, straight)]
    assert [end["train"]["epoch"] for end in ends] == [4, 4]
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name]), name


def test_a_training_that_was_cut_off_is_resumed(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-c", trained / "best_ckpt.pth", "-o", tmp_path, "-f", tiny_exp, *QUICK)
    calls: list[list[str]] = []

    def cut_off(stage: Training, *, resumes: bool) -> None:
        calls.append(stage.words(resumes=resumes))
        latest = tmp_path / "finetuned" / "latest_ckpt.pth"
        latest.parent.mkdir(exist_ok=True)
        latest.write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", cut_off)
    assert command(compress.main, *words) == 130
    assert command(compress.main, *words) == 130
    first, second = calls
    assert "--resume" not in first
    assert first[first.index("-c") + 1] == str(tmp_path / "pruned" / "pruned.pth")
    assert "--resume" in second
    assert second[second.index("-c") + 1] == str(tmp_path / "finetuned" / "latest_ckpt.pth")


@pytest.mark.parametrize(
    ("words", "origin"),
    [(("-n", "yolox-nano"), "yolox-nano"), ((), "yolox-s"), (("-f", "exp.py"), Path("exp.py"))],
)
def test_a_run_hangs_on_the_recipe_that_is_read(
    words: tuple[str, ...],
    origin: object,
    tiny_exp: Path,
    devkit: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, object] = {}

    def stop(*_: object, **settings: object) -> None:
        asked.update(settings)
        raise UserError("enough")

    monkeypatch.setattr(compress, "plan_compression", stop)
    monkeypatch.chdir(tmp_path)
    Path("exp.py").write_bytes(tiny_exp.read_bytes())
    data = () if "-f" in words else ("--data", devkit)
    assert command(compress.main, "-c", trained / "best_ckpt.pth", *data, *words) == 1
    assert "enough" in capsys.readouterr().err
    assert asked["origin"] == origin


def test_a_plan_names_every_stage_and_touches_nothing(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "compress.yaml"
    config.write_text(
        "target: macs=0.7\nsparsity: 0.001\nsensitivity: true\nsteps: 2\nstep-epochs: 3\n"
        "distill: true\nformats: [onnx, ncnn]\nexp:\n  eval_interval: 7\n"
    )
    folder = tmp_path / "out"
    words = ("--config", config, "--dry-run", "--target", "macs=0.8", "-o", folder)
    words = (*words, "-c", trained / "best_ckpt.pth", "-f", tiny_exp)
    assert command(compress.main, *words) == 0
    plan = capsys.readouterr().out
    for part in (
        "--sparsity 0.001", "--metric loss", "--target macs=0.8", "--steps 2 --step-epochs 3",
        "--distill", "--format onnx", "--format ncnn", "eval_interval 7", "left to do",
    ):  # fmt: skip
        assert part in plan, part
    assert not folder.exists()


def test_lines_are_of_the_program_that_was_called(
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def begun(stages: list[Stage], record: Record, **_: object) -> None:
        record.begin(stages[0], "mark")
        raise UserError("begun")

    monkeypatch.setattr(compress, "run_stages", begun)
    starts = {"yolox": "yolox prune ", "compress.py": "python tools/prunmodel.py "}
    for program, pruning in starts.items():
        monkeypatch.setattr(sys, "argv", [program])
        folder = tmp_path / program
        words = ("-c", trained / "best_ckpt.pth", "-o", folder, "-f", tiny_exp, *QUICK)
        assert command(compress.main, *words) == 1
        line = stages(folder)["pruning"]["command"]
        assert line.startswith(pruning)
        assert line in capsys.readouterr().out.splitlines()


def test_everything_is_measured_at_the_size_of_the_training(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-c", trained / "best_ckpt.pth", "-o", tmp_path / "out", "--dry-run", "-f", tiny_exp)
    assert command(compress.main, *words, "test_size", "96,64", "input_size", "96,64") == 0
    (bench,) = (line for line in capsys.readouterr().out.splitlines() if "tools/bench.py" in line)
    assert "--tsize 96 64" in bench


def test_another_exp_file_is_another_run(tiny_exp: Path, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(tiny_exp.read_text() + "\n# with another method\n")
    exp, source = get_exp(tiny_exp), trained / "best_ckpt.pth"
    marks = {origin_of(exp, source, recipe) for recipe in (tiny_exp, other, "yolox-s")}
    assert len(marks) == 3


def test_folders_of_others_are_left_alone(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "sensitivity" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    words = ("-c", trained / "best_ckpt.pth", "-o", tmp_path, "-f", tiny_exp, *QUICK)
    assert command(compress.main, *words, "--sensitivity") == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"{mine.parent} would be replaced" in error
    assert tree(tmp_path).keys() == {"sensitivity/notes.txt"}


def test_the_recipe_on_the_command_line_wins(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "compress.yaml"
    config.write_text(f"exp_file: {tmp_path / 'none.py'}\nexp:\n  no_aug_epochs: 2\n")
    words = ("--config", config, "--dry-run", "-c", trained / "best_ckpt.pth", "--epochs", 3)
    assert command(compress.main, *words, "-f", tiny_exp) == 0
    plan = capsys.readouterr().out.splitlines()
    (tuning,) = (line for line in plan if "-expn finetuned" in line)
    assert f"-f {tiny_exp}" in tuning
    assert tuning.endswith("max_epoch 3 no_aug_epochs 2")
    assert command(compress.main, *words) == 1
    assert "no Exp file at" in capsys.readouterr().err


def test_a_training_is_given_the_fields_that_are_of_it(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would be told of as without effect, though they have one in another stage."""
    lines: dict[str, list[str]] = {}

    def noted(stage: Training, *, resumes: bool) -> None:
        lines[stage.name] = stage.words(resumes=resumes)
        raise UserError("noted")

    monkeypatch.setattr(Training, "run", noted)
    common = ("-c", trained / "best_ckpt.pth", "-f", tiny_exp, *QUICK, "--target", "macs=0.5")
    fields = ("sparsity_form", "group", "distill_box", 0.5, "finetune_lr", 2, "momentum", 0.8)
    sparse = ("--sparsity", 0.001, "--sparsity-epochs", 1, "-o", tmp_path / "a")
    assert command(compress.main, *common, *sparse, *fields) == 1
    assert [word in lines["sparse"] for word in fields[::2]] == [True, False, False, True]
    taught = ("--distill", "-o", tmp_path / "b")
    assert command(compress.main, *common, *taught, *fields) == 1
    assert [word in lines["finetuned"] for word in fields[::2]] == [False, True, True, True]
    assert command(compress.main, *common, "-o", tmp_path / "c", "sparsity", 0.1) == 1
    assert len(lines) == 2


def test_a_latency_is_planned_with_the_activation_that_stays(
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("-c", trained / "best_ckpt.pth", "-o", tmp_path / "out", "--dry-run")
    words = (*words, "--target", "latency=0.5", "--runtime", "ncnn", "-f", tiny_exp)
    assert command(compress.main, *words) == 0
    plan = capsys.readouterr().out.splitlines()
    (tuning,) = (line for line in plan if "-expn finetuned" in line)
    assert "finetune_act ''" in tuning
    (bench,) = (line for line in plan if "tools/bench.py" in line)
    assert "--runtimes torch ncnn onnxruntime" in bench
    arithmetic = ("--runtime", "openvino", "--openvino-precision", "bf16")
    assert command(compress.main, *words, *arithmetic) == 0
    plan = capsys.readouterr().out.splitlines()
    for tool in ("prunmodel", "bench"):
        (line,) = (line for line in plan if f"tools/{tool}.py" in line)
        assert "--openvino-precision bf16" in line
    assert command(compress.main, *words, *arithmetic, "--formats", "openvino", "-f", tiny_exp) == 0
    plan = capsys.readouterr().out.splitlines()
    for tool in ("eval", "report"):
        (line,) = (line for line in plan if f"tools/{tool}.py" in line)
        assert "--openvino-precision bf16" in line
    assert command(compress.main, *words, "finetune_act", "mish") == 0
    assert "finetune_act ''" not in capsys.readouterr().out
    assert command(compress.main, *words[:-4], "-f", tiny_exp) == 0  # nothing of ncnn
    capsys.readouterr()
    assert (
        command(compress.main, *words, "--target", "macs=0.5") == 0
    )  # measured in it all the same
    (bench,) = (line for line in capsys.readouterr().out.splitlines() if "tools/bench.py" in line)
    assert "--runtimes torch ncnn onnxruntime" in bench

    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    assert command(compress.main, *words) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "needs ncnn" in error


@pytest.mark.parametrize(("after", "met"), [(5.1, True), (6.0, False)])
def test_what_was_asked_is_compared_with_what_came_out(
    after: float, met: bool, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    times = {("before", "torch"): 99.0, ("before", "ncnn"): 10.0, ("after", "ncnn"): after}
    measurements = [
        {"label": label, "runtime": runtime, "forward": {"median": ms}}
        for (label, runtime), ms in times.items()
    ]
    file.write_text(json.dumps({"measurements": measurements}))
    verdict = latency_verdict("latency=0.5", "ncnn", file)
    assert verdict.met is met
    assert f"takes {after:.2f} of 10.00 ms" in verdict.text


def test_an_end_below_the_cut_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def told(pruned: float, after: float) -> str:
        rows = (("before", 0.767), ("pruned", pruned), ("after", after))
        models = tuple(
            ModelRow(label=label, role="" if label == "pruned" else label, ap50_95=ap, params=1000)
            for label, ap in rows
        )
        made = Report(title="t", date="2026-01-02", models=models)
        tell_verdicts(Verdict(target="macs=0.5", before=2, after=1, met=True), made)
        return capsys.readouterr().err

    lost = told(0.2, 0.043)
    assert "WARNING failed: AP 0.767\N{NO-BREAK SPACE}→ 0.043" in lost
    assert "94\u202f% of the AP is lost" in lost
    assert "WARNING the end is below the cut: AP50-95 0.043 after fine-tuning, 0.200" in lost
    kept = told(0.7, 0.77)
    assert "INFO    accuracy kept: " in kept
    assert "WARNING" not in kept


@pytest.mark.parametrize(
    ("words", "content", "expected"),
    [
        (("--target", "macs=2"), None, "target must be"),
        (("max_epoch", 50), None, "max_epoch has no say here: give --epochs"),
        (("no_aug_epochs", 2), None, "no_aug_epochs 2 is more than the epochs of a training, --e"),
        (("--importance", "nothing"), None, "importance must be one of"),
        (("--sparsity", -1), None, "strength must be"),
        (("--target", "latency=0.5", "--steps", 2), None, "--steps goes towards a target in macs"),
        ((), "tagret: macs=0.5\n", "unknown tagret"),
        ((), "- macs\n", "expected flags and their values"),
        ((), "exp: 3\n", "exp holds fields of the Exp"),
        ((), "target: [", "cannot read"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    content: str | None,
    expected: str,
) -> None:
    if content is not None:
        (tmp_path / "c.yaml").write_text(content)
        words = ("--config", tmp_path / "c.yaml")
    folder = tmp_path / "out"
    common = ("-c", trained / "best_ckpt.pth", "-o", folder, "-f", tiny_exp, "--epochs", 1)
    fields = words if content is None and "--" not in str(words[0]) else ()
    assert command(compress.main, *(() if fields else words), *common, *fields) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert expected in error
    assert not folder.exists()


def _plain(value: object) -> object:
    """An argument as something that can be compared."""
    if isinstance(value, Exp):
        return {name: getattr(value, name) for name in value.given}
    if isinstance(value, LoadedModel):
        return value.spec
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, Fabric) else value


@pytest.mark.parametrize(
    ("target", "updates", "refit", "bare"),
    [
        ("macs=0.2", 700, None, True),
        ("macs=0.2", 600, None, False),
        ("macs=0.2", 700, True, False),
        ("macs=0.34", 700, None, False),
        ("macs=0.1", 700, None, False),
        ("params=0.2", 700, None, False),
        ("latency=0.2", 700, None, False),
        ("latency=20ms", 700, None, False),
        ("macs=0.5", 10, False, True),
    ],
)
def test_layers_are_refitted_by_budget(
    target: str, updates: int, refit: bool | None, bare: bool
) -> None:
    assert CompressSettings(target=target, refit=refit).cuts_bare(updates) is bare


def test_compress_stages_do_what_their_lines_do(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each calls its job with the arguments that the command of its line calls it with."""
    source, folder = trained / "best_ckpt.pth", tmp_path / "out"
    fields = ("finetune_lr", "2.0", "momentum", "0.8", "test_conf", "0.02", "distill_box", "0.5")
    recipe = Recipe(exp=get_exp(tiny_exp), named=("-f", str(tiny_exp))).giving(*fields)
    settings = CompressSettings(
        target="params=0.6",
        importance="l1",
        round_to=4,
        images=4,
        sensitivity=True,
        sparsity=0.001,
        sparsity_epochs=3,
        epochs=2,
        distill=True,
        formats=("openvino", "onnx"),
        threads=1,
        openvino_precision="bf16",
    )
    latency = CompressSettings(target="latency=0.5", runtime="openvino", importance="l1", images=4)
    bare = CompressSettings(target="macs=0.6", importance="l1", images=4, refit=False)
    processes = Processes(devices=None)
    stages = [
        stage
        for asked in (settings, latency, bare)
        for stage in plan_compression(
            source, recipe, asked, folder=folder, processes=processes
        ).stages()
    ]
    for name in ("sparse", "finetuned"):
        (folder / name).mkdir(parents=True)
        shutil.copy(source, folder / name / "latest_ckpt.pth")
    layer = trace_groups(load_model(source).model, probe())[0].producers[0].name
    (folder / "sensitivity").mkdir()
    (folder / "sensitivity" / "ratios.json").write_text(json.dumps({layer: 0.5}))
    calls: list[dict[str, object]] = []

    def note(job: Callable[..., Any]) -> Callable[..., None]:
        def noted(*args: object, **options: object) -> None:
            bound = inspect.signature(job).bind(*args, **options)
            bound.apply_defaults()
            calls.append({name: _plain(value) for name, value in bound.arguments.items()})
            raise UserError("noted")

        return noted

    def note_training(exp: Exp, args: argparse.Namespace) -> None:
        names = vars(official_args(TrainOptions()))
        calls.append({"exp": _plain(exp), **{name: getattr(args, name) for name in names}})
        raise UserError("noted")

    monkeypatch.setattr(Exp, "get_trainer", note_training)
    commands: dict[str, Any] = {"train": train}
    for module, job in (
        (sensitivity, "analyse"),
        (prunmodel, "prepare_pruning"),
        (export, "export_checkpoint"),
        (eval, "evaluate_and_write"),
        (bench, "measure_models"),
        (report, "write_report"),
    ):
        commands[module.__name__.rpartition(".")[2]] = module
        noted = note(getattr(module, job))
        monkeypatch.setattr(module, job, noted)
        monkeypatch.setattr(f"yolox.jobs.compress.stages.{job}", noted)
    for stage in stages:
        for resumes in (False, True) if isinstance(stage, Training) else (False,):
            calls.clear()
            with pytest.raises(UserError, match="noted"):
                stage.run(resumes=resumes)
            with pytest.raises(UserError, match="noted"):
                commands[stage.tool].main(stage.words(resumes=resumes))
            if "command" in calls[0]:
                assert calls[0]["command"] == stage.line()
            assert calls[0] == calls[1], stage.name
