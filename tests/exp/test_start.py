"""Where a run starts from, and what it would write over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runs import command, new_trainer, read, tree, write_exp
from yolox.exp import TrainOptions
from yolox.models import load_model
from yolox.tools import train
from yolox.utils.checkpoint import CheckpointError, save_checkpoint
from yolox.utils.errors import UserError


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


def test_depths_that_make_the_same_network_are_the_same(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The spec of a file without one is inferred: of a depth of 0.3 too it says 0.33."""
    options = TrainOptions(checkpoint=pruned, given=("depth",))
    new_trainer(tiny_exp, tmp_path, options=options, depth=0.3)
    assert "the Exp describes" not in capsys.readouterr().err


OWN_LOSS = """
    def get_model(self):
        plain = super().get_model()
        return Doubled(plain.backbone, plain.head)


from yolox.models import YOLOX


class Doubled(YOLOX):
    def loss(self, x, targets):
        return {name: 2 * value for name, value in super().loss(x, targets).items()}
"""


def test_a_class_of_the_exps_own_computes_the_losses_of_the_pruned_model_too(
    tiny_exp: Path, devkit: Path, pruned: Path, trained: Path, tmp_path: Path
) -> None:
    own = write_exp(tmp_path / "own.py", devkit, tmp_path / "out", OWN_LOSS)
    images, targets = torch.rand(2, 3, 64, 64) * 255, torch.tensor([[[0.0, 32, 32, 16, 16]]] * 2)
    losses = [
        new_trainer(exp, tmp_path, options=TrainOptions(checkpoint=pruned)).model(images, targets)
        for exp in (tiny_exp, own)
    ]
    assert losses[1]["total_loss"].item() == pytest.approx(2 * losses[0]["total_loss"].item())
    options = TrainOptions(checkpoint=pruned, teacher=trained / "best_ckpt.pth")
    with pytest.raises(UserError, match=r"Doubled\.loss"):
        new_trainer(own, tmp_path, options=options)


def test_a_run_of_an_earlier_version_goes_on(
    tiny_exp: Path,
    trained: Path,
    pruned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its checkpoint has the recipe in another place; a teacher's mark is found there."""
    options = TrainOptions(checkpoint=pruned, teacher=trained / "best_ckpt.pth")
    trainer = new_trainer(tiny_exp, tmp_path, options=options, max_epoch=1, no_aug_epochs=0)
    trainer.train()
    latest = tmp_path / "tiny_finetune" / "latest_ckpt.pth"
    content = read(latest)
    content["train"]["recipe"] = content.pop("recipe")
    save_checkpoint(latest, content)
    assert load_model(latest).recipe == trainer.recipe
    capsys.readouterr()
    again = TrainOptions(checkpoint=latest, resume=True, teacher=trained / "best_ckpt.pth")
    new_trainer(tiny_exp, tmp_path, options=again, max_epoch=1, no_aug_epochs=0).train()
    assert "settings changed" not in capsys.readouterr().err


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
