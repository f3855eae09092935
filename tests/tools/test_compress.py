"""One command from a checkpoint to a report; stopped anywhere, it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import command, error_lines, read, tree
from yolox.models import load_model
from yolox.tools import compress, train
from yolox.utils.model_utils import count_params

pytest.importorskip("onnxruntime", reason="needs the export extra", exc_type=ImportError)

QUICK = ("--importance", "l1", "--round-to", 1, "--epochs", 1, "--images", 4, "--threads", 1)


def stages(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compress.json").read_text())["stages"]
    return found


@pytest.mark.slow
def test_the_whole_road_and_only_what_is_left_of_it(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = trained / "best_ckpt.pth"
    words = ("-c", best, "-o", tmp_path, "-f", tiny_exp, *QUICK, "--target", "params=0.6")
    assert command(compress.main, *words) == 0
    assert list(stages(tmp_path)) == [
        *("pruning", "finetuned", "export to onnx", "AP of the onnx file"),
        *("measurement", "report"),
    ]
    final = load_model(tmp_path / "finetuned" / "latest_ckpt.pth")
    whole = count_params(load_model(best).model)
    assert count_params(final.model) / whole == pytest.approx(0.6, abs=0.02)
    metrics = json.loads((tmp_path / "eval" / "onnx" / "metrics.json").read_text())
    assert metrics
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "python tools/prunmodel.py" in page

    written = tree(tmp_path)
    capsys.readouterr()
    assert command(compress.main, *words) == 0
    assert capsys.readouterr().err.count("done before") == 6
    assert tree(tmp_path) == written

    # Another length of fine-tuning: the pruning stands.
    longer = ("--epochs", 2)
    assert command(compress.main, *words[:6], *QUICK, *longer, *words[-2:]) == 0
    assert tree(tmp_path)["pruned/pruned.pth"] == written["pruned/pruned.pth"]
    content = read(tmp_path / "finetuned" / "latest_ckpt.pth")
    assert content["train"]["epoch"] == 2


def test_a_training_that_was_cut_off_is_resumed(
    tiny_exp: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-c", trained / "best_ckpt.pth", "-o", tmp_path, "-f", tiny_exp, *QUICK)
    calls: list[list[str]] = []

    def cut_off(argv: list[str]) -> None:
        calls.append(argv)
        latest = tmp_path / "finetuned" / "latest_ckpt.pth"
        latest.parent.mkdir(exist_ok=True)
        latest.write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "main", cut_off)
    assert command(compress.main, *words) == 130
    assert command(compress.main, *words) == 130
    first, second = calls
    assert "--resume" not in first
    assert first[first.index("-c") + 1] == str(tmp_path / "pruned" / "pruned.pth")
    assert "--resume" in second
    assert second[second.index("-c") + 1] == str(tmp_path / "finetuned" / "latest_ckpt.pth")


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


@pytest.mark.parametrize(
    ("words", "content", "expected"),
    [
        (("--target", "macs=2"), None, "target must be"),
        (("--importance", "nothing"), None, "importance must be one of"),
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
    common = ("-c", trained / "best_ckpt.pth", "-o", folder, "-f", tiny_exp)
    assert command(compress.main, *words, *common) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert expected in error
    assert not folder.exists()
