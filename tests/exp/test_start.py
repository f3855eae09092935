"""Where a run starts from, and what it would write over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import command, new_trainer, tree
from yolox.exp import TrainOptions
from yolox.tools import train
from yolox.utils.checkpoint import CheckpointError


def test_a_run_does_not_write_over_its_own_start(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out" / "tiny"
    folder.mkdir(parents=True)
    for name in ("best_ckpt.pth", "latest_ckpt.pth"):
        (folder / name).write_bytes((trained / name).read_bytes())
    before = tree(folder)
    best = folder / "best_ckpt.pth"
    common = ("--precision", "fp32", "-f", own_exp, "-c", best)
    assert command(train.main, *common, "--sparsity", "0.01") == 1
    error = capsys.readouterr().err
    assert f"writes its checkpoints into {folder}, over {best}, which it starts" in error
    assert "-expn tiny_2, or go on with the run that stopped there with --resume" in error
    assert tree(folder) == before
    # Also where the path goes another way, and it is the teacher.
    around = TrainOptions(teacher=tmp_path / "out" / "." / ".." / "out" / "tiny" / "best_ckpt.pth")
    with pytest.raises(CheckpointError, match="starts or learns from"):
        new_trainer(own_exp, tmp_path / "out", options=around)
    assert command(train.main, *common, "-expn", "tiny_2", "max_epoch", 1) == 0
    assert "holds the checkpoints of another run" not in capsys.readouterr().err
    assert tree(folder) == before


def test_a_fine_tuning_does_not_write_over_its_teacher(
    own_exp: Path, pruned: Path, trained: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "out" / "tiny_finetune" / "latest_ckpt.pth"
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes((trained / "best_ckpt.pth").read_bytes())
    options = TrainOptions(checkpoint=pruned, teacher=teacher)
    with pytest.raises(CheckpointError, match="as -expn tiny_finetune_2"):
        new_trainer(own_exp, tmp_path / "out", options=options)


def test_a_run_over_another_one_is_told(
    own_exp: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    latest = folder / "latest_ckpt.pth"
    latest.write_bytes((trained / "latest_ckpt.pth").read_bytes())
    new_trainer(own_exp, tmp_path)
    assert f"{folder} holds the checkpoints of another run" in capsys.readouterr().err
    new_trainer(own_exp, tmp_path, options=TrainOptions(resume=True))
    assert "another run" not in capsys.readouterr().err


@pytest.mark.parametrize("resume", [True, False])
def test_an_exp_of_another_model_is_told_and_refused_where_it_is_asked_for(
    tiny_exp: Path,
    trained: Path,
    pruned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    resume: bool,
) -> None:
    path = trained / "latest_ckpt.pth" if resume else pruned
    options = TrainOptions(checkpoint=path, resume=resume)
    new_trainer(tiny_exp, tmp_path, options=options)
    assert "the Exp describes" not in capsys.readouterr().err
    trainer = new_trainer(tiny_exp, tmp_path, options=options, width=0.25, depth=0.67)
    told = f"{path} holds a model of depth 0.33, width 0.125, the Exp describes depth 0.67, width"
    assert told in capsys.readouterr().err
    assert (trainer.spec.depth, trainer.spec.width) == (0.33, 0.125)
    given = TrainOptions(checkpoint=path, resume=resume, given=("width",))
    with pytest.raises(CheckpointError, match=r"cannot go on with .*width 0\.25: leave that out"):
        new_trainer(tiny_exp, tmp_path, options=given, width=0.25)
