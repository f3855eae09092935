"""The sensitivity command: what it writes, that it goes on after a kill, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.runs import command, error_lines
from yolox.jobs.sensitivity import Study
from yolox.models import load_model
from yolox.pruning.sensitivity import SensitivityPoint
from yolox.tools import prunmodel, sensitivity

LAYERS = ("backbone.backbone.dark4.0", "backbone.backbone.dark2.1.conv3", "head.stems.0")
FILES = {"sensitivity.jsonl", "sensitivity.png", "ratios.json"}


def _run(exp: Path, ckpt: Path, folder: Path, *args: object, opts: tuple[object, ...] = ()) -> int:
    """On the loss of four images: `args` may set other flags."""
    return command(
        sensitivity.main, "--metric", "loss", "--images", 4, "--layers", *LAYERS,
        "--ratios", 0.1, 0.5, "--tolerance", 0.5, *args, "-c", ckpt, "-o", folder, "-f", exp, *opts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tiny_exp: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run. Not to be written to."""
    folder = tmp_path_factory.mktemp("measured")
    assert _run(tiny_exp, trained / "best_ckpt.pth", folder) == 0
    return folder


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    err = capsys.readouterr().err
    (line,) = error_lines(err)
    assert "Traceback" not in err
    for word in words:
        assert word in line


def test_three_files(measured: Path, trained: Path) -> None:
    assert {path.name for path in measured.iterdir()} == FILES
    header, base, *lines = map(
        json.loads, (measured / "sensitivity.jsonl").read_text().split("\n")[:-1]
    )
    assert header["metric"] == "loss"
    assert header["training_data"].startswith("4 images ")
    points = [SensitivityPoint(**line) for line in lines]
    names = sorted(f"{layer}.conv" for layer in LAYERS)
    assert sorted({p.layer for p in points}) == names
    assert [p.ratio for p in points] == [0.1, 0.5] * 3
    modules = dict(load_model(trained / "best_ckpt.pth").model.named_modules())
    for p in points:
        assert p.size == modules[p.layer].out_channels
        assert p.removed == max(round(p.ratio * p.size), 1)
        assert p.value > 0
    ratios = json.loads((measured / "ratios.json").read_text())
    assert ratios
    for name, ratio in ratios.items():
        for p in points:
            if p.layer == name and p.ratio <= ratio:
                assert p.value <= 1.5 * base["base"] + 1e-6


def test_table_and_next_step(
    tiny_exp: Path,
    trained: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(measured, tmp_path / "again"))
    best = trained / "best_ckpt.pth"
    assert _run(tiny_exp, best, folder, opts=("data_num_workers", 0)) == 0
    out, err = capsys.readouterr()
    for layer in LAYERS:
        assert f" {layer}.conv " in out
    assert "6 of them known" in err
    assert "together cost more" in err
    (line,) = [line for line in err.splitlines() if "prunmodel.py" in line]
    assert f"--layer-sparsity {folder / 'ratios.json'}" in line
    assert line.endswith(f"-f {tiny_exp} data_num_workers 0")
    for name in ("sensitivity.jsonl", "ratios.json"):
        assert (folder / name).read_bytes() == (measured / name).read_bytes()


def test_prunmodel_takes_the_ratios(
    tiny_exp: Path, trained: Path, measured: Path, tmp_path: Path
) -> None:
    output, ratios = tmp_path / "p.pth", measured / "ratios.json"
    best = trained / "best_ckpt.pth"
    args = ("--importance", "l1", "--round-to", 1, "--reconstruct", 0, "--no-latency")
    status = command(
        prunmodel.main, "--layer-sparsity", ratios, *args, "-c", best, "-o", output, "-f", tiny_exp
    )
    assert status == 0
    before, after = (dict(load_model(path).model.named_modules()) for path in (best, output))
    changed = {
        name: 1 - after[name].out_channels / module.out_channels
        for name, module in before.items()
        if isinstance(module, torch.nn.Conv2d) and module.out_channels != after[name].out_channels
    }
    wanted = json.loads(ratios.read_text())
    assert changed.keys() <= wanted.keys()
    assert changed == pytest.approx({name: wanted[name] for name in changed}, abs=1 / 16)


def test_prunmodel_spares_what_no_ratio_was_found_for(
    tiny_exp: Path,
    trained: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, fine = tmp_path / "p.pth", json.loads((measured / "ratios.json").read_text())
    ratios = tmp_path / "ratios.json"
    ratios.write_text(json.dumps(dict(list(fine.items())[:2])))
    args = ("--importance", "l1", "--round-to", 1, "--reconstruct", 0, "--no-latency")
    status = command(
        prunmodel.main, "--spare", ratios, "--ch-sparsity", 0.01, *args,
        "-c", trained / "best_ckpt.pth", "-o", output, "-f", tiny_exp,
    )  # fmt: skip
    assert status == 0
    assert "sensitive layers stay whole" in capsys.readouterr().err
    plan = json.loads(output.with_suffix(".plan.json").read_text())
    cut = {group["name"] for group in plan["groups"] if group["remove"]}
    assert cut
    assert cut <= set(list(fine)[:2])


@pytest.mark.parametrize("half_a_line", [False, True])
def test_killed_run_goes_on(
    half_a_line: bool, tiny_exp: Path, trained: Path, measured: Path, tmp_path: Path
) -> None:
    straight = (measured / "sensitivity.jsonl").read_bytes()
    lines = straight.splitlines(keepends=True)
    killed = b"".join(lines[:5]) + (lines[5][:25] if half_a_line else b"")
    (tmp_path / "sensitivity.jsonl").write_bytes(killed)
    assert _run(tiny_exp, trained / "best_ckpt.pth", tmp_path) == 0
    assert (tmp_path / "sensitivity.jsonl").read_bytes() == straight
    assert (tmp_path / "ratios.json").read_bytes() == (measured / "ratios.json").read_bytes()


def test_stopped_in_the_middle_keeps_what_was_measured(
    tiny_exp: Path, trained: Path, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Study.measure, []

    def measure(study: Study, model: torch.nn.Module) -> float:
        calls.append(model)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(study, model)

    monkeypatch.setattr(Study, "measure", measure)
    assert _run(tiny_exp, trained / "best_ckpt.pth", tmp_path) == 130
    straight = (measured / "sensitivity.jsonl").read_bytes()
    assert (tmp_path / "sensitivity.jsonl").read_bytes() == b"".join(
        straight.splitlines(keepends=True)[:4]
    )


def test_a_new_ratio_is_added(
    tiny_exp: Path,
    trained: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(measured, tmp_path / "more"))
    before = (folder / "sensitivity.jsonl").read_bytes()
    args = ("--ratios", 0.1, 0.8, "--tolerance", 0)
    assert _run(tiny_exp, trained / "best_ckpt.pth", folder, *args) == 0
    after = (folder / "sensitivity.jsonl").read_bytes()
    assert after.startswith(before)
    added = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert [line["ratio"] for line in added] == [0.8] * 3
    err = capsys.readouterr().err
    assert "3 of them known" in err
    assert " 1/3: " in err
    assert " 3/3: " in err


def test_another_checkpoint_or_setting_is_refused(
    tiny_exp: Path, trained: Path, pruned: Path, measured: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(measured, tmp_path / "held"))
    before = (folder / "sensitivity.jsonl").read_bytes()
    best = trained / "best_ckpt.pth"
    for ckpt, args, words in (
        (pruned, (), ("checkpoint ", "Choose another -o, or")),
        (best, ("--images", 3), ("images 4 there, 3 now",)),
        (best, ("--importance", "l1"), ("importance taylor there, l1 now",)),
    ):
        assert _run(tiny_exp, ckpt, folder, *args) == 1
        _refused(capsys, *words)
    assert _run(tiny_exp, best, folder, opts=("test_size", "96,96")) == 1
    _refused(capsys, "test_size [64, 64] there, [96, 96] now")
    assert (folder / "sensitivity.jsonl").read_bytes() == before


def test_nothing_within_the_tolerance_leaves_no_ratios(
    tiny_exp: Path,
    trained: Path,
    measured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    (folder / "ratios.json").write_text("{}")
    header, _, *points = (measured / "sensitivity.jsonl").read_text().splitlines(keepends=True)
    (folder / "sensitivity.jsonl").write_text("".join([header, '{"base": 0.001}\n', *points]))
    assert _run(tiny_exp, trained / "best_ckpt.pth", folder) == 0
    assert "every layer costs more than" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == FILES - {"ratios.json"}


def test_ap_of_a_model_that_has_some(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default AP, without calibration images where the criterion needs none."""
    values = iter([0.5, 0.5, 0.3])
    real = Study.measure

    def measure(study: Study, model: torch.nn.Module) -> float:
        assert 0 <= real(study, model) <= 1
        return next(values)

    monkeypatch.setattr(Study, "measure", measure)
    layers = ("--layers", *LAYERS[:1], "--ratios", 0.1, 0.5, "--importance", "l1")
    common = (*layers, "-c", trained / "best_ckpt.pth", "-f", tiny_exp)
    assert command(sensitivity.main, "-o", tmp_path, *common) == 0
    header = json.loads((tmp_path / "sensitivity.jsonl").read_text().splitlines()[0])
    assert header["metric"] == "ap"
    assert header["evaluation_data"].startswith("3 images ")
    assert "training_data" not in header
    assert json.loads((tmp_path / "ratios.json").read_text()) == {f"{LAYERS[0]}.conv": 0.1}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--ratios", "0.5", "1"), ("--ratios", "between 0 and 1, exclusive", "1")),
        (("--ratios", "0"), ("--ratios", "between 0 and 1")),
        (("--ratios", "half"), ("--ratios", "invalid number", "half")),
        (("--tolerance", "-1"), ("--tolerance", "at least 0")),
        (("--layers", "bakbone.stem"), ("--layers", "bakbone.stem", "nearest")),
        (("--metric", "ap", "--tolerance", "0.9"), ("AP50-95", "train it first")),
        (("-c", "no.pth"), ("no checkpoint at no.pth",)),
    ],
)
def test_sensitivity_refuses_wrong_input(
    args: tuple[str, ...], words: tuple[str, ...], tiny_exp: Path, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    common = ("-c", trained / "best_ckpt.pth", "-o", tmp_path / "o")
    assert command(sensitivity.main, *common, *args, "--images", 2, "-f", tiny_exp) == 1
    _refused(capsys, *words)


def test_an_empty_checkpoint_is_refused(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    assert _run(tiny_exp, tmp_path / "empty.pth", tmp_path / "o") == 1
    _refused(capsys, "empty.pth (0 bytes)")
