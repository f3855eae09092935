"""The eval command: its flags, the files it writes, several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.runs import command, launch, tree
from yolox.tools import eval
from yolox.utils.checkpoint import file_digest

Capture = pytest.CaptureFixture[str]


def _figures(log: str) -> list[str]:
    """The lines with AP, which hold no times."""
    return [line for line in log.splitlines() if "AP50" in line or "by size" in line]


def test_report_is_written_beside_the_run(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    best = trained / "best_ckpt.pth"
    before = tree(trained)
    args = ["-c", str(best), "--plots", "-expn", "mine", "-f", str(own_exp), "seed", "3"]
    assert command(eval.main, *args) == 0
    folder = tmp_path / "out" / "mine" / "eval" / "best_ckpt"
    files = {path.name for path in folder.iterdir()}
    assert files == {"metrics.json", "precision_recall.png", "f1.png", "confusion.png"}
    assert f"figures and pictures in {folder}" in capsys.readouterr().err
    content = json.loads((folder / "metrics.json").read_text())
    assert content["command"] == "python tools/eval.py " + " ".join(args)
    assert content["checkpoint_sha256"] == file_digest(best)
    assert content["test_size"] == [64, 64]
    assert {row["name"] for row in content["result"]["per_class"]} >= {"circle", "square"}
    counted = sum(row["objects"] for row in content["result"]["per_class"])
    assert np.array(content["confusion"]["counts"])[:-1].sum() == counted
    assert tree(trained) == before


def test_without_a_checkpoint_the_run_s_own_best(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out" / "mine"
    folder.mkdir(parents=True)
    (folder / "best_ckpt.pth").write_bytes((trained / "best_ckpt.pth").read_bytes())
    elsewhere = tmp_path / "pictures"
    assert command(eval.main, "-expn", "mine", "--plots", elsewhere, "-f", own_exp) == 0
    assert (elsewhere / "metrics.json").is_file()
    assert [path.name for path in folder.iterdir()] == ["best_ckpt.pth"]
    assert command(eval.main, "-f", own_exp) == 1
    assert "no checkpoint at" in capsys.readouterr().err


def test_detections_are_saved_in_coco_s_form(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "deep" / "found.json"
    args = ("-c", trained / "best_ckpt.pth", "--save-detections", file, "-f", tiny_exp)
    assert command(eval.main, "--conf", 0.00001, *args) == 0
    rows = json.loads(file.read_text())
    assert len({row["image_id"] for row in rows}) == 3
    assert {row["category_id"] for row in rows} <= {0, 1, 2}
    assert all(set(row) == {"image_id", "category_id", "bbox", "score"} for row in rows)
    assert all(row["score"] >= 0.00001 for row in rows)
    assert f"{len(rows):,} detections in {file}" in capsys.readouterr().err
    assert command(eval.main, "--conf", 1, *args) == 0
    assert json.loads(file.read_text()) == []


def test_speed_times_each_image_alone(tiny_exp: Path, trained: Path, capsys: Capture) -> None:
    args = ("-c", trained / "best_ckpt.pth", "--speed", "-f", tiny_exp)
    assert command(eval.main, *args) == 0
    log = capsys.readouterr().err
    assert "speed at batch 1, 64×64, fp32: forward" in log
    assert "mean of 2 images after one to warm up" in log
    assert command(eval.main, "-d", 2, *args) == 1
    assert "--speed times one process: leave out -d" in capsys.readouterr().err


def test_flags_of_the_official_command(tiny_exp: Path, trained: Path, capsys: Capture) -> None:
    args = ("-c", trained / "best_ckpt.pth", "-f", tiny_exp)
    assert command(eval.main, *args) == 0
    plain = _figures(capsys.readouterr().err)
    same = "-d 1 -b 2 --seed 5 --conf 0.01 --nms 0.65 --tsize 64 --local_rank 0 --num_machines 1"
    same += " --machine_rank 0 --dist-backend gloo --dist-url auto"
    assert command(eval.main, *same.split(), *args) == 0
    assert _figures(capsys.readouterr().err) == plain
    for flag in ("--fp16", "--fuse", "--legacy"):
        assert command(eval.main, flag, *args) == 0
    capsys.readouterr()
    assert command(eval.main, "--trt", *args) == 1
    assert "TensorRT is not supported" in capsys.readouterr().err
    assert command(eval.main, "--num_machines", 2, *args) == 1
    assert "--dist-url tcp://HOST:PORT" in capsys.readouterr().err


def test_testdev_writes_the_file_to_hand_in(
    tiny_exp: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--test", "-c", trained / "best_ckpt.pth", "-f", tiny_exp)
    assert command(eval.main, *args, "test_sets", "2007/trainval") == 0
    assert list(tree(tmp_path)) == ["yolox_testdev_2017.json"]
    assert "mean of 9 images" in capsys.readouterr().err


def test_table_by_ap(tiny_exp: Path, trained: Path, capsys: Capture) -> None:
    args = ("-c", trained / "best_ckpt.pth", "--sort", "objects", "-f", tiny_exp)
    assert command(eval.main, *args) == 0
    table = capsys.readouterr().err.splitlines()
    start = next(i for i, line in enumerate(table) if line.startswith("class "))
    counts = [int(line.split()[1]) for line in table[start + 1 : start + 4]]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.slow
def test_two_processes_count_each_image_once(
    tiny_exp: Path, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Three images on two processes: one has a single one, none is repeated."""

    def run(*flags: object) -> tuple[list[str], list[list[float]]]:
        # Every anchor is kept: no order of nearly equal scores decides.
        file = tmp_path / "found.json"
        args = ("--save-detections", file, "--conf", 0, "--nms", 1, "-b", 2, *flags)
        line = ("-c", trained / "best_ckpt.pth", *args, "-f", tiny_exp)
        if "-d" in flags:
            done = launch("eval", *line, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            log = done.stderr
        else:
            assert command(eval.main, *line) == 0
            log = capsys.readouterr().err
        rows = json.loads(file.read_text())
        found = [[row["image_id"], *row["bbox"], row["score"]] for row in rows]
        return _figures(log), sorted(found)

    figures, rows = run()
    both_figures, both_rows = run("-d", 2)
    assert both_figures == figures, "one report, with the same figures"
    assert len(rows) == 3 * (8 * 8 + 4 * 4 + 2 * 2)
    np.testing.assert_allclose(both_rows, rows, rtol=1e-3, atol=1e-3)
