"""Flags that do nothing where they are given: told, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import command, error_lines
from yolox.pruning import PruneConfig
from yolox.pruning.idle import tell_idle_fields
from yolox.tools import bench, prunmodel, report
from yolox.tools.flags.prunmodel import make_parser
from yolox.tools.prune_args import given_fields


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.split("\n")
    return [line.partition("without effect: ")[2] for line in lines if "without effect" in line]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--mode list --target macs=0.5 --latency", ["--target, since --mode list prunes nothing"]),
        (
            "--mode save --rounds 2 --overwrite max_epoch 9",
            ["--rounds, since --mode save prunes nothing", "max_epoch, since nothing is trained"],
        ),
        ("--mode list", []),
    ],
)
def test_a_mode_that_prunes_nothing_names_what_it_does_not_read(
    line: str,
    wanted: list[str],
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = () if "list" in line else ("-o", tmp_path / "whole.pth")
    source = ("-f", tiny_exp, "-c", trained / "best_ckpt.pth", *where)
    assert command(prunmodel.main, *source, *line.split()) == 0
    assert told(capsys) == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "--plan p.json --importance l1 --scope uniform --max-sparsity 0.5 --rounds 1",
            "`scope`, `importance`, `rounds`, `max_sparsity`, since `plan` says what goes",
        ),
        ("--importance obs --aggregate max", "`aggregate`, since importance obs combines no"),
        ("--importance random --normalize max", "`normalize`, since importance random combines"),
        ("--importance obs --rounds 3", "`rounds`, since importance obs takes one round"),
        ("--reconstruct 0 --held-back 8", "`held_back`, since no layer is refitted"),
        ("--importance taylor --aggregate max --rounds 3 --round-to 16", ""),
    ],
)
def test_what_choosing_does_not_read_is_told(
    line: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = make_parser()
    args = parser.parse_args(line.split())
    config = PruneConfig(
        importance=args.importance, reconstruct=64 if args.reconstruct is None else args.reconstruct
    )
    tell_idle_fields(config, given_fields(args, parser), planned=args.plan is not None)
    lines = told(capsys)
    assert len(lines) == bool(wanted)
    assert not wanted or lines[0].startswith(wanted)


def test_the_arithmetic_of_openvino_needs_openvino(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained / "best_ckpt.pth"
    for main, words in (
        (bench.main, (file, "--runtimes", "torch")),
        (report.main, ("-c", file, "--no-eval", "-o", tmp_path / "r.html")),
    ):
        assert command(main, *words, "--openvino-precision", "bf16") == 1
        (error,) = error_lines(capsys.readouterr().err)
        assert "--openvino-precision is of OpenVINO, which runs nothing here" in error
    assert not list(tmp_path.iterdir())


def test_a_report_without_ap_names_what_is_of_images(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("-c", trained / "best_ckpt.pth", "--no-eval", "-o", tmp_path / "r.html")
    assert command(report.main, *args, "--images", 2, "--conf", 0.5) == 0
    wanted = [f"{flag}, since --no-eval leaves the images out" for flag in ("--images", "--conf")]
    assert told(capsys) == wanted
