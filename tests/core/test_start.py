"""A fine-tuning begins with the AP of what it starts from, and does not lose that model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import yolox.core.trainer
from tests.runs import differences, new_trainer, read
from yolox.core import Trainer
from yolox.jobs.train import TrainOptions
from yolox.models import activation_of, load_model
from yolox.utils.errors import UserError

KEPT = {"finetune_act": ""}


def _run(trainer: Trainer, *aps: float) -> Any:
    """Train with such evaluations, as many as there have to be."""
    values: Iterator[float] = iter(aps)

    def evaluate(_: object) -> tuple[float, float, str]:
        value = next(values)
        return value, value + 0.1, "a summary"

    trainer.evaluate = evaluate
    result = trainer.train()
    assert not list(values)
    return result


def test_a_run_that_ends_below_its_start_says_so_and_keeps_it(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=pruned), **KEPT)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    result = _run(trainer, 0.5, 0.3, 0.4)
    assert (result.ap50_95, result.ap50) == (0.5, 0.6)
    best = read(tmp_path / "tiny_finetune" / "best_ckpt.pth")
    assert differences(dict(best["model"]), before) == []
    assert "train" not in best
    log = capsys.readouterr().err
    assert "before the first step: AP50-95 0.5000  AP50 0.6000" in log
    (told,) = [line for line in log.splitlines() if "training cost accuracy" in line]
    assert "last epoch's AP50-95 is 0.400, and the run started from 0.500" in told
    assert f"{result.best_checkpoint} holds the start" in told


def test_a_new_activation_does_not_lower_the_start(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainOptions(checkpoint=pruned)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, finetune_act="mish")
    result = _run(trainer, 0.5, 0.1, 0.3, 0.4)
    assert result.ap50_95 == 0.5
    best = load_model(result.best_checkpoint)
    assert best.spec.act == activation_of(best.model) == "silu"
    assert load_model(result.latest_checkpoint).spec.act == "mish"
    log = capsys.readouterr().err
    assert "activation silu → mish took AP50-95 from 0.500 to 0.100" in log
    assert "is 0.400, and the run started from 0.500" in log


def test_a_better_epoch_takes_the_place_of_the_start(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainOptions(checkpoint=pruned)
    result = _run(new_trainer(tiny_exp, tmp_path, options=options, **KEPT), 0.5, 0.6, 0.55)
    assert result.ap50_95 == 0.6
    assert "training cost accuracy" not in capsys.readouterr().err
    result = _run(new_trainer(tiny_exp, tmp_path, options=options, **KEPT), 0.5, 0.6, 0.4)
    assert "holds a better epoch" in capsys.readouterr().err


def test_a_resumed_run_remembers_its_start(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields: dict[str, Any] = {"max_epoch": 1, "no_aug_epochs": 0, **KEPT}
    options = TrainOptions(checkpoint=pruned)
    _run(new_trainer(tiny_exp, tmp_path, options=options, **fields), 0.5, 0.6)
    latest = tmp_path / "tiny_finetune" / "latest_ckpt.pth"
    assert read(latest)["train"]["start"] == 0.5
    options = TrainOptions(checkpoint=latest, resume=True)
    capsys.readouterr()
    result = _run(new_trainer(tiny_exp, tmp_path, options=options), 0.4)
    assert result.ap50_95 == 0.6
    assert "is 0.400, and the run started from 0.500" in capsys.readouterr().err


def test_the_control_is_treated_as_the_pruned_model_is(
    tiny_exp: Path, trained: Path, pruned: Path, tmp_path: Path
) -> None:
    options = TrainOptions(checkpoint=trained / "best_ckpt.pth", control=True)
    control = new_trainer(tiny_exp, tmp_path, options=options)
    tuned = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=pruned))
    assert control.recipe == tuned.recipe
    assert control.recipe["fine_tuning"]
    assert control.recipe["retake_statistics"]
    assert control.spec.act == tuned.spec.act
    assert control.settings.evaluate_start
    assert control.settings.output_dir == tmp_path / "tiny_control"
    whole = read(trained / "best_ckpt.pth")["model"]
    weights = control.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in whole.items())
    with pytest.raises(UserError, match=r"`control` trains a whole model on.*give its checkpoint"):
        new_trainer(tiny_exp, tmp_path, options=TrainOptions(control=True))


def test_a_short_run_needs_no_word_on_its_plain_epochs(
    tiny_exp: Path, trained: Path, pruned: Path, tmp_path: Path
) -> None:
    tuned, whole = (
        new_trainer(
            tiny_exp,
            tmp_path,
            options=TrainOptions(checkpoint=path),
            given=("max_epoch", 5),
            no_aug_epochs=8,
        )
        for path in (pruned, trained / "best_ckpt.pth")
    )
    assert tuned.settings.no_aug_epochs == 5  # 15 steps have no time for mosaics
    assert whole.settings.no_aug_epochs == 1  # the official recipe, shortened
    with pytest.raises(UserError, match="no_aug_epochs must be from 0 to max_epoch 5: 8"):
        new_trainer(tiny_exp, tmp_path, max_epoch=5, no_aug_epochs=8)


def test_statistics_are_retaken_before_evaluations_alone(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retaken: list[object] = []
    monkeypatch.setattr(
        yolox.core.trainer, "retake_statistics", lambda model, *_: retaken.append(model)
    )
    fields = {"max_epoch": 3, "no_aug_epochs": 0, "eval_interval": 9, "retake_statistics": True}
    _run(new_trainer(tiny_exp, tmp_path, **fields), 0.5)
    assert len(retaken) == 1
