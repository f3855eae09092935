"""The recipe that a pruned model is fine-tuned with, and what a person sets over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.runs import command, new_trainer, read
from yolox.exp import Exp, ExpError
from yolox.jobs.train import TrainOptions
from yolox.jobs.train.finetune import (
    FULL_RATE_UPDATES,
    LEAST_RATE,
    build_ema,
    fine_tuning,
    warn_of_tiny_images,
)
from yolox.models import ModelSpec, build_model
from yolox.tools import prunmodel, train
from yolox.utils.ema import ModelEMA

BARE = ("--reconstruct", "0", "--no-latency")


def _exp(**fields: Any) -> Exp:
    exp = Exp()
    for name, value in fields.items():
        assert hasattr(exp, name), name
        setattr(exp, name, value)
    return exp


def _plain_exp() -> Exp:
    return _exp(max_epoch=2, no_aug_epochs=1)


def _figures(exp: Exp) -> tuple[float, ...]:
    return exp.max_epoch, exp.no_aug_epochs, exp.warmup_epochs, exp.ema_decay


@pytest.mark.parametrize(
    ("fields", "steps", "expected"),
    [
        # A tenth of the run as warm-up, 60 of its 3000 updates averaged, a quarter plain.
        ({"finetune_epochs": 30}, 100, (30, 7, 3.0, 1 - 1 / 60)),
        # A long run: nothing above what the Exp says.
        ({}, 1000, (300, 15, 5.0, 0.9998)),
        # A short one: the last update alone, and at least 100 updates on images as they are,
        # or all of them where fewer than that are left for mosaics.
        ({"finetune_epochs": 1}, 10, (1, 1, 0.1, 0.0)),
        ({"finetune_epochs": 4}, 10, (4, 4, 0.4, 0.0)),
        ({"finetune_epochs": 8}, 20, (8, 8, 0.8, 1 - 1 / 3.2)),
        ({"finetune_epochs": 10}, 20, (10, 5, 1.0, 0.75)),
        ({"finetune_epochs": 4, "warmup_epochs": 0.1}, 50, (4, 2, 0.1, 0.75)),
        ({"finetune_epochs": 50, "accumulate": 4}, 10, (50, 15, 5.0, 1 - 1 / 3)),
        ({"finetune_epochs": 30, "ema_decay": 0.9}, 100, (30, 7, 3.0, 0.9)),
        ({"finetune_epochs": 4, "no_aug_epochs": 0}, 10, (4, 0, 0.4, 0.0)),
    ],
)
def test_the_recipe_is_scaled_to_the_run(
    fields: dict[str, Any], steps: int, expected: tuple[float, ...]
) -> None:
    exp = _exp(**fields)
    before = dict(vars(exp))
    tuned = fine_tuning(exp, steps)
    assert _figures(tuned) == pytest.approx(expected)
    assert vars(exp) == before


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ((), 0.5),
        (("basic_lr_per_img",), 1.0),
        (("finetune_lr",), 0.5),
        (("finetune_lr", "basic_lr_per_img"), 0.5),
    ],
)
def test_the_rate_is_scaled_unless_it_was_given(given: tuple[str, ...], factor: float) -> None:
    exp = _exp(finetune_lr=0.5)
    exp.merge([word for name in given for word in (name, str(getattr(exp, name)))])
    tuned = fine_tuning(exp, 100)
    assert tuned.basic_lr_per_img == pytest.approx(factor * 0.01 / 64)


@pytest.mark.parametrize("epochs", [1, 2, 4, 8, 60])
def test_the_rate_of_a_short_run_is_lower_and_ends_low(epochs: int) -> None:
    """Its peak comes within a fifth of the run, and its end is near the floor."""
    exp, steps = _exp(finetune_epochs=epochs, warmup_epochs=1), 20
    tuned = fine_tuning(exp, steps)
    share = min(max(epochs * steps / FULL_RATE_UPDATES, LEAST_RATE), 1)
    assert tuned.basic_lr_per_img == pytest.approx(2 * share * 0.01 / 64)
    schedule = tuned.get_lr_scheduler(1.0, steps)
    rates = [schedule(i) for i in range(1, epochs * steps + 1)]
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates.index(max(rates)) < 0.2 * len(rates)
    assert rates[-1] < 0.06
    exp.merge(["finetune_lr", "3"])
    assert fine_tuning(exp, steps).basic_lr_per_img == pytest.approx(3 * 0.01 / 64)


def test_statistics_are_retaken_unless_a_person_said_no() -> None:
    assert not _plain_exp().retake_statistics
    assert fine_tuning(_plain_exp(), 10).retake_statistics
    exp = _plain_exp()
    exp.merge(["retake_statistics", "False"])
    assert not fine_tuning(exp, 10).retake_statistics
    exp = _plain_exp()
    exp.retake_statistics = False  # in an Exp file
    assert not fine_tuning(exp, 10).retake_statistics


@pytest.mark.parametrize(("side", "steps"), [(160, 1), (320, 2), (416, 3), (640, 5), (1280, 5)])
def test_sizes_stay_within_a_quarter_of_the_input_unless_a_person_said_more(
    side: int, steps: int
) -> None:
    exp = _plain_exp()
    exp.merge(["input_size", f"{side},{side}"])
    tuned = fine_tuning(exp, 10)
    assert tuned.multiscale_range == steps
    assert tuned.train_sizes()[0][0] >= 0.75 * side
    exp.merge(["multiscale_range", "4"])
    assert fine_tuning(exp, 10).multiscale_range == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["input_size", "160,160"], "from 32×32 to 320×320: multiscale_range 1 stays"),
        (["input_size", "320,320"], ""),
        (["input_size", "160,160", "multiscale_range", "5"], ""),
    ],
)
def test_a_whole_model_trained_on_tiny_images_is_a_warning(given: list[str], words: str) -> None:
    exp = _plain_exp()
    exp.merge(given)
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    warn_of_tiny_images(exp)
    logger.remove(sink)
    assert words in "".join(lines)
    assert len(lines) == bool(words)


def test_what_was_given_stays() -> None:
    exp = _exp(finetune_epochs=4)
    exp.merge(["no_aug_epochs", "6"])
    with pytest.raises(ExpError, match="no_aug_epochs must be from 0 to max_epoch 4: 6"):
        fine_tuning(exp, 10)
    exp.merge(["max_epoch", "8", "warmup_epochs", "5", "ema_decay", "0.99"])
    assert _figures(fine_tuning(exp, 10)) == (8, 6, 5, 0.99)


def test_the_average_reaches_its_decay_within_its_window() -> None:
    model = build_model(ModelSpec(depth=0.33, width=0.0625))
    short = build_ema(_exp(ema_decay=0.99), model, tuned=True)
    assert short is not None
    short.updates = 100
    assert short.decay == pytest.approx(0.99 * (1 - 2.718281828**-1))
    for exp, tuned in ((_exp(), True), (_exp(), False), (_exp(ema_decay=0.99), False)):
        long, plain = build_ema(exp, model, tuned=tuned), ModelEMA(model, exp.ema_decay)
        assert long is not None
        long.updates = plain.updates = 700
        assert long.decay == plain.decay
    assert build_ema(_exp(ema=False), model, tuned=True) is None


def test_a_pruned_model_is_trained_by_the_recipe_and_no_other_is(
    tiny_exp: Path, pruned: Path, trained: Path, tmp_path: Path
) -> None:
    fields = {"max_epoch": 8, "no_aug_epochs": 4, "finetune_epochs": 4, "finetune_lr": 0.5}
    tuned = new_trainer(tiny_exp, tmp_path, options=TrainOptions(checkpoint=pruned), **fields)
    assert (tuned.settings.max_epoch, tuned.settings.no_aug_epochs) == (4, 4)
    assert tuned.recipe["max_epoch"] == 4
    rate = 0.5 * LEAST_RATE * 0.01 / 64
    assert tuned.recipe["basic_lr_per_img"] == pytest.approx(rate)
    assert tuned.schedule(1) <= 4 * rate
    options = TrainOptions(checkpoint=trained / "best_ckpt.pth")
    plain = new_trainer(tiny_exp, tmp_path, options=options, **fields)
    assert (plain.settings.max_epoch, plain.settings.no_aug_epochs) == (8, 4)
    assert plain.recipe["basic_lr_per_img"] == 0.01 / 64


def test_the_command_line_wins_and_a_line_tells_the_recipe(
    own_exp: Path, pruned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--precision", "fp32", "-f", own_exp)
    pairs = ("finetune_epochs", 5, "max_epoch", 1, "ema_decay", 0.75, "basic_lr_per_img", 0.001)
    assert command(train.main, *common, "-c", pruned, *pairs) == 0
    log = capsys.readouterr().err
    recipe = "1 epochs, the last 1 without mosaic, warm-up 0.1 epochs, basic_lr_per_img 0.001, EMA"
    assert f"fine-tuning recipe: {recipe} decay 0.75" in log
    latest = own_exp.parent / "out" / "tiny_finetune" / "latest_ckpt.pth"
    resumed = (*common, "-c", latest, "--resume", *pairs[2:])
    assert command(train.main, *resumed) == 0  # the same recipe again: nothing to warn of
    log = capsys.readouterr().err
    assert "fine-tuning recipe: 1 epochs" in log
    assert "settings changed" not in log


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("finetune_lr", 0.0, "finetune_lr must be positive: 0.0"),
        ("finetune_epochs", -1, "finetune_epochs must be at least 0: -1"),
        ("distill_obj", -0.5, "distill_obj must be at least 0: -0.5"),
        ("distill_temperature", 0.0, "distill_temperature must be positive: 0.0"),
        ("distill_temperature", float("inf"), "distill_temperature must be finite: inf"),
        ("distill_cls", float("nan"), "distill_cls must be finite: nan"),
        ("mosaic_scale", (float("nan"), 2.0), r"mosaic_scale must be finite: \(nan, 2.0\)"),
        ("sparsity_form", "l7", "form must be one of l1, group: 'l7'"),
    ],
)
def test_fields_that_cannot_be(field: str, value: Any, message: str) -> None:
    with pytest.raises(ExpError, match=message):
        _exp(**{field: value}).check()


def test_values_of_a_persons_own_may_be_anything() -> None:
    exp = Exp()
    exp.best_so_far = float("-inf")  # type: ignore[attr-defined]
    exp.check()


def test_what_the_run_that_made_the_model_had_otherwise_is_told(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its command line had other values than the Exp; a second pruning still knows them."""
    out = ("output_dir", tmp_path / "out")
    common = ("--precision", "fp32", "-f", tiny_exp)
    own = ("basic_lr_per_img", 0.001, "max_epoch", 3, "momentum", 0.8)
    assert command(train.main, *common, *out, *own) == 0
    folder, source = tmp_path / "out" / "tiny", "best_ckpt.pth"
    flags = ("--importance", "l1", "--ch-sparsity", "0.2", *BARE, "-f", tiny_exp)
    for turn in ("once", "twice"):
        small = tmp_path / f"{turn}.pth"
        assert command(prunmodel.main, *flags, "-c", folder / source, "-o", small) == 0
        options = TrainOptions(checkpoint=small, name=turn)
        capsys.readouterr()
        trainer = new_trainer(tiny_exp, tmp_path, options=options, finetune_lr=0.5)
        (told,) = [line for line in capsys.readouterr().err.splitlines() if "had other" in line]
        for change in ("momentum 0.8 → 0.9", "basic_lr_per_img 0.001 → 0.000156", "max_epoch 3 →"):
            assert change in told
        assert trainer.recipe["max_epoch"] == 2
        assert trainer.recipe["basic_lr_per_img"] == pytest.approx(0.5 * LEAST_RATE * 0.01 / 64)
        given = ("max_epoch", 2, "basic_lr_per_img", 0.01 / 64, "momentum", 0.9)
        new_trainer(tiny_exp, tmp_path, options=options, given=given)
        assert "had other settings" not in capsys.readouterr().err
        if turn == "once":
            assert command(train.main, *common, "-c", small, "-expn", "tuned", *out) == 0
            folder, source = tmp_path / "out" / "tuned", "latest_ckpt.pth"


def test_length_and_rate_of_a_sparse_run_are_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sparse = {"sparsity": 0.01, "max_epoch": 3, "basic_lr_per_img": 0.1, "momentum": 0.8}
    fine_tuning(_exp(), 100, sparse)
    assert "had other settings: momentum 0.8 → 0.9; to" in capsys.readouterr().err
    fine_tuning(_exp(finetune_epochs=30), 100, {"max_epoch": 3})
    assert "had other settings" not in capsys.readouterr().err


def test_fields_without_effect_are_told(
    own_exp: Path, pruned: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--precision", "fp32", "-f", own_exp, "-e", 1)
    fields = ("sparsity_form", "group", "distill_box", 0.5, "finetune_lr", 0.5, "max_epoch", 1)
    assert command(train.main, *common, *fields) == 0
    log = capsys.readouterr().err
    assert "without effect: sparsity_form, since no penalty is on: give --sparsity" in log
    assert "without effect: distill_box, since there is no teacher: give --distill" in log
    assert "without effect: finetune_lr, since the model is not pruned" in log
    assert "without effect: -e, since no run is resumed" in log
    flags = ("-c", pruned, "--sparsity", 0.01, "--distill", trained / "best_ckpt.pth")
    assert command(train.main, *common[:-2], *flags, *fields) == 0
    assert "without effect" not in capsys.readouterr().err


def test_a_penalty_of_the_recipe_ends_with_the_pruning(
    tiny_exp: Path, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TrainOptions(checkpoint=pruned)
    assert new_trainer(tiny_exp, tmp_path, options=options, sparsity=0.1).regularizer is None
    assert "sparsity is off: the model is pruned" in capsys.readouterr().err
    trainer = new_trainer(tiny_exp, tmp_path, options=options, given=("sparsity", 0.1))
    assert trainer.regularizer is not None
    assert trainer.recipe["sparsity"] == 0.1


@pytest.mark.parametrize("given", [(), ("test_size", "96,64")])
def test_it_is_evaluated_at_the_size_of_the_pruned_file(
    given: tuple[str, ...], tiny_exp: Path, pruned: Path, tmp_path: Path
) -> None:
    """The Exp may have another: what is exported later has the size that was trained."""
    options = TrainOptions(checkpoint=pruned)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, given=given, test_size=(128, 160))
    size = (128, 160) if given else tuple(read(pruned)["spec"]["input_size"])
    assert trainer.spec.input_size == size
