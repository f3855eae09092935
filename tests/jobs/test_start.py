"""Where a run starts from, and what it would write over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import command, new_trainer, read, tree, write_exp
from yolox.core.signals import Interrupted
from yolox.exp import get_exp
from yolox.jobs.train import TrainOptions
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
    assert "-expn tiny_2, or continue the run that stopped there with --resume" in error
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
    with pytest.raises(CheckpointError, match="as `name='tiny_finetune_2'`"):
        new_trainer(own_exp, tmp_path / "out", options=options)


def test_a_kept_epoch_is_a_start_like_any_other_unless_it_is_kept_again(
    own_exp: Path, trained: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "tiny" / "epoch_2_ckpt.pth"
    kept.parent.mkdir()
    kept.write_bytes((trained / "best_ckpt.pth").read_bytes())
    options = TrainOptions(checkpoint=kept)
    new_trainer(own_exp, tmp_path, options=options)
    with pytest.raises(CheckpointError, match="starts or learns from"):
        new_trainer(own_exp, tmp_path, options=options, save_history_ckpt=True)


def test_a_stopped_run_says_how_it_goes_on(own_exp: Path, tmp_path: Path) -> None:
    """A run within another command, as a step of pruning, goes on with that command."""
    hint = f"`checkpoint='{tmp_path / 'tiny' / 'latest_ckpt.pth'}'` `resume=True`"
    for goes_on, words in (("the same command", "the same command"), ("", hint)):
        options = TrainOptions(goes_on=goes_on, resume=not goes_on)
        trainer = new_trainer(own_exp, tmp_path, options=options, max_epoch=4)
        figures = iter([(0.1, 0.2, "")])

        def evaluate(_: Any, figures: Any = figures) -> tuple[float, float, str]:
            if (first := next(figures, None)) is None:
                raise Interrupted(2)
            return first

        trainer.evaluate = evaluate
        with pytest.raises(Interrupted, match=re.escape(f": {words} continues from epoch ")):
            trainer.train()


def test_data_that_make_no_batch_are_refused(
    own_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = get_exp(own_exp)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.rand(3)), batch_size=4, drop_last=True
    )
    monkeypatch.setattr(exp, "get_data_loader", lambda *_, **__: loader)
    with pytest.raises(UserError, match="make no batch of 4: lower the batch size"):
        new_trainer(exp, tmp_path)


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
    options = TrainOptions(checkpoint=pruned)
    new_trainer(tiny_exp, tmp_path, options=options, given=("depth", 0.3))
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
    with pytest.raises(CheckpointError, match=r"not continue with .*width 0\.25: leave that out"):
        new_trainer(tiny_exp, tmp_path, options=options, given=("width", 0.25))
