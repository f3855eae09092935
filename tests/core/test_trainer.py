"""What the trainer does and when: updates, rates, phases, evaluations, files, log, scalars."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs import STEPS, command, differences, error_lines, new_trainer, read
from yolox.core import NonFiniteLossError, Trainer, build_sgd
from yolox.jobs.train import TrainOptions
from yolox.models import load_model
from yolox.tools import train
from yolox.utils.errors import UserError


class _Spy:
    """Counts what a trainer does, by hooks that change nothing."""

    def __init__(self, trainer: Trainer) -> None:
        self.rates: list[float] = []
        self.batches: list[tuple[int, bool]] = []  # size, L1 on
        self.epochs: list[tuple[int, bool]] = []
        self.evaluated: list[torch.nn.Module] = []
        trainer.optimizer.register_step_pre_hook(self._step)
        trainer.model.register_forward_pre_hook(self._forward)
        set_epoch, evaluate = trainer.train_loader.set_epoch, trainer.evaluate

        def set_epoch_seen(epoch: int, mosaic: bool, first: int = 0) -> None:
            self.epochs.append((epoch, mosaic))
            set_epoch(epoch, mosaic, first)

        def evaluate_seen(model: torch.nn.Module) -> tuple[float, float, str]:
            self.evaluated.append(model)
            return evaluate(model)

        trainer.train_loader.set_epoch = set_epoch_seen  # type: ignore[method-assign]
        trainer.evaluate = evaluate_seen

    def _step(self, optimizer: Any, *_: object) -> None:
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        self.rates += rates

    def _forward(self, model: Any, args: tuple[Any, ...]) -> None:
        if model.training:
            self.batches.append((len(args[0]), model.head.use_l1))


# ------------------------------------------------------------------------------ updates and rates


def test_updates_and_rates_of_a_plain_run(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, max_epoch=3)
    spy = _Spy(trainer)
    trainer.train()
    assert len(spy.batches) == 3 * STEPS
    peak = 0.01 / 64 * 4
    floor = 0.05 * peak
    middle = [floor + (peak - floor) * (1 + math.cos(math.pi * i / 3)) / 2 for i in (1, 2)]
    expected = [peak / 9, peak * 4 / 9, peak, *middle, floor, floor, floor, floor]
    assert spy.rates == pytest.approx(expected)
    assert trainer.ema is not None
    assert trainer.ema.updates == 9


@pytest.mark.parametrize(
    ("accumulate", "last_of_group"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (5, [3])]
)
def test_updates_and_rates_with_accumulation(
    tiny_exp: Path, tmp_path: Path, accumulate: int, last_of_group: list[int]
) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, accumulate=accumulate)
    spy = _Spy(trainer)
    trainer.train()
    expected = [trainer.schedule(e * STEPS + n) for e in range(2) for n in last_of_group]
    assert trainer.schedule.lr == pytest.approx(0.01 / 64 * 4 * accumulate)
    assert spy.rates == expected
    assert len(spy.batches) == 2 * STEPS
    assert trainer.ema is not None
    assert trainer.ema.updates == len(expected)


def test_an_accumulated_update_is_that_of_the_mean_gradient(tiny_exp: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "train_sets": ("2007/train",),  # 7 images, two batches of 4
        "accumulate": 2,
        "max_epoch": 1,
        "no_aug_epochs": 0,
        "ema": False,
    }
    trainer = new_trainer(tiny_exp, tmp_path / "run", **fields)
    trainer.train()

    twin = new_trainer(tiny_exp, tmp_path / "twin", **fields)
    model = twin.model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin.train_loader.set_epoch(0, True)
    parameters = list(model.parameters())
    gradients = []
    for images, targets, _, _ in twin.train_loader:
        images = images.contiguous(memory_format=torch.channels_last)
        loss = model(images, targets)["total_loss"]
        gradients.append(torch.autograd.grad(loss, parameters))
    assert len(gradients) == 2
    optimizer = build_sgd(model, lr=twin.schedule(2), momentum=0.9, weight_decay=5e-4)
    for parameter, *parts in zip(parameters, *gradients, strict=True):
        parameter.grad = sum(parts) / 2  # type: ignore[assignment]
    optimizer.step()
    moved = trainer.model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(moved[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_input_sizes_come_from_the_recipe_alone(tiny_exp: Path, tmp_path: Path) -> None:
    seen: list[set[tuple[int, int]]] = []
    for name in ("a", "b"):
        trainer = new_trainer(
            tiny_exp, tmp_path / name, multiscale_range=1, max_epoch=6, eval_interval=9
        )
        sizes: list[tuple[int, int]] = []

        def note(model: Any, args: tuple[Any, ...], sizes: Any = sizes) -> None:
            if model.training:
                sizes.append(tuple(args[0].shape[-2:]))

        trainer.model.register_forward_pre_hook(note)
        trainer.train()
        assert set(sizes) <= {(32, 32), (64, 64), (96, 96)}
        assert len(set(sizes)) > 1
        seen.append(sizes)  # type: ignore[arg-type]
    assert seen[0] == seen[1]


# ------------------------------------------------------------------------- phases and evaluations


@pytest.mark.parametrize(
    ("max_epoch", "no_aug", "interval", "evaluated"),
    [
        (4, 1, 2, [2, 4]),
        (4, 2, 9, [3, 4]),
        (3, 0, 2, [2, 3]),
        (2, 2, 9, [1, 2]),
        (2, 0, 9, [2]),
    ],
)
def test_last_epochs_have_no_mosaic_and_the_l1_loss(
    tiny_exp: Path, tmp_path: Path, max_epoch: int, no_aug: int, interval: int, evaluated: list[int]
) -> None:
    trainer = new_trainer(
        tiny_exp, tmp_path, max_epoch=max_epoch, no_aug_epochs=no_aug, eval_interval=interval,
        save_history_ckpt=True,
    )  # fmt: skip
    spy = _Spy(trainer)
    trainer.train()
    plain = max_epoch - no_aug
    assert spy.epochs == [(epoch, epoch < plain) for epoch in range(max_epoch)]
    assert [l1 for _, l1 in spy.batches[::STEPS]] == [epoch >= plain for epoch in range(max_epoch)]
    assert {size for size, _ in spy.batches} == {4}
    assert len(spy.evaluated) == len(evaluated)
    assert trainer.ema is not None
    assert all(model is trainer.ema.ema for model in spy.evaluated)
    history = {f"epoch_{epoch}_ckpt.pth" for epoch in evaluated}
    folder = tmp_path / "tiny"
    assert {path.name for path in folder.glob("epoch_*")} == history


def test_without_an_average_the_model_itself_is_evaluated_and_saved(
    tiny_exp: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, ema=False)
    spy = _Spy(trainer)
    trainer.train()
    assert all(model is trainer.model for model in spy.evaluated)
    content = read(tmp_path / "tiny" / "latest_ckpt.pth")
    assert differences(content["model"], content["train"]["raw_model"]) == []


def _ap(*values: float) -> Any:
    results = iter(values)

    def evaluate(_: object) -> tuple[float, float, str]:
        value = next(results)
        return value, value + 0.1, "a summary"

    return evaluate


def test_best_is_that_of_the_highest_ap(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, max_epoch=4, eval_interval=1, save_history_ckpt=True)
    trainer.evaluate = _ap(0.2, 0.5, 0.5, 0.4)
    result = trainer.train()
    folder = tmp_path / "tiny"
    assert (result.ap50_95, result.ap50) == (0.5, 0.6)
    assert result.best_checkpoint == folder / "best_ckpt.pth"
    best = read(result.best_checkpoint)
    assert differences(best, read(folder / "epoch_2_ckpt.pth")) == []
    assert len(differences(best["model"], read(folder / "epoch_3_ckpt.pth")["model"])) > 100
    assert "train" not in best
    latest = read(folder / "latest_ckpt.pth")["train"]
    assert (latest["epoch"], latest["best"][0]) == (4, 0.5)


def test_a_resumed_run_keeps_the_better_best(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, max_epoch=1)
    trainer.evaluate = _ap(0.5)
    trainer.train()
    best = (tmp_path / "tiny" / "best_ckpt.pth").read_bytes()
    trainer = new_trainer(tiny_exp, tmp_path, max_epoch=3, options=TrainOptions(resume=True))
    trainer.evaluate = _ap(0.4, 0.3)
    assert trainer.train().ap50_95 == 0.5
    assert (tmp_path / "tiny" / "best_ckpt.pth").read_bytes() == best


# ------------------------------------------------------------------------------- non-finite losses


def _poison(trainer: Trainer, forward: int) -> None:
    """Put a NaN into a weight just before the given training forward pass, counted from 1."""
    count = 0

    def hook(model: Any, _: object) -> None:
        nonlocal count
        count += model.training
        if count == forward and model.training:
            with torch.no_grad():
                model.head.obj_preds[0].bias.fill_(float("nan"))

    trainer.model.register_forward_pre_hook(hook)


def test_non_finite_loss_names_the_batch_and_keeps_the_last_epoch(
    tiny_exp: Path, tmp_path: Path
) -> None:
    trainer = new_trainer(tiny_exp, tmp_path)
    _poison(trainer, STEPS + 2)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()

    twin = new_trainer(tiny_exp, tmp_path / "unused")
    twin.train_loader.set_epoch(1, False)
    *_, ids = list(twin.train_loader)[1]
    names = [twin.image_names[int(i)] for i in np.asarray(ids).ravel()]
    assert len(names) == 4
    assert f"on the images {', '.join(names)}:" in str(caught.value)

    content = read(tmp_path / "tiny" / "latest_ckpt.pth")
    assert content["train"]["epoch"] == 1
    for kind in ("model", "raw_model"):
        state = content["model"] if kind == "model" else content["train"][kind]
        assert all(torch.isfinite(value).all() for value in state.values())
    load_model(tmp_path / "tiny" / "latest_ckpt.pth")
    assert not list((tmp_path / "tiny").glob("*.tmp"))

    trainer = new_trainer(tiny_exp, tmp_path, options=TrainOptions(resume=True))
    trainer.train()
    assert read(tmp_path / "tiny" / "latest_ckpt.pth")["train"]["epoch"] == 2


def test_weights_spoilt_by_the_last_update_of_an_epoch_are_not_saved(
    tiny_exp: Path, tmp_path: Path
) -> None:
    """The loss was finite, the weights after it are not: the good checkpoint must stay."""
    trainer = new_trainer(tiny_exp, tmp_path, eval_interval=9, max_epoch=3, no_aug_epochs=0)
    count = 0

    def hook(optimizer: Any, *_: object) -> None:
        nonlocal count
        count += 1
        if count == 2 * STEPS:
            with torch.no_grad():
                optimizer.param_groups[1]["params"][0].fill_(float("nan"))

    trainer.optimizer.register_step_post_hook(hook)
    with pytest.raises(UserError, match="finite"):
        trainer.train()
    content = read(tmp_path / "tiny" / "latest_ckpt.pth")
    assert all(torch.isfinite(value).all() for value in content["model"].values())
    assert content["train"]["epoch"] == 1


def test_command_stops_on_a_non_finite_loss(
    own_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command(
        train.main, "--precision", "fp32", "-f", own_exp, "basic_lr_per_img", "1e30",
    )  # fmt: skip
    assert status == 1
    errors = error_lines(capsys.readouterr().err)
    assert len(errors) == 1
    assert "not finite" in errors[0]
    assert errors[0].count("demo_000") == 4
    assert not list((tmp_path / "out").rglob("*.pth"))


# --------------------------------------------------------------------------------- log and scalars


def test_the_grad_mode_of_the_caller_comes_back(tiny_exp: Path, tmp_path: Path) -> None:
    """An error that a signal raises may come when `no_grad` has begun and nothing ends it yet."""
    trainer = new_trainer(tiny_exp, tmp_path)

    def evaluate(_: torch.nn.Module) -> tuple[float, float, str]:
        torch.no_grad().__enter__()
        raise RuntimeError("DataLoader worker is killed")

    trainer.evaluate = evaluate
    with pytest.raises(RuntimeError, match="killed"):
        trainer.train()
    assert torch.is_grad_enabled()


@pytest.fixture(scope="module")
def logged(devkit: Path, tiny_exp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    status = command(
        train.main, "--precision", "fp32", "-f", tiny_exp,
        "output_dir", folder, "max_epoch", 3, "print_interval", 2, "eval_interval", 2,
    )  # fmt: skip
    assert status == 0
    return folder / "tiny"


def test_log_has_a_line_an_interval(logged: Path) -> None:
    number = r"\d+\.\d{3}"
    line = re.compile(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO +epoch (\d)/3 iter (\d)/3  "
        rf"loss ({number}) \(iou ({number}) conf ({number}) cls ({number}) l1 ({number})\)  "
        r"lr (\d\.\d{3}e-\d\d)  size 64×64  \d+\.\d img/s  eta \d+:\d\d:\d\d$",
        re.MULTILINE,
    )
    rows = line.findall((logged / "train_log.txt").read_text(encoding="utf-8"))
    assert [row[:2] for row in rows] == [
        (epoch, iteration) for epoch in "123" for iteration in "23"
    ]
    for epoch, _, total, *parts, lr in rows:
        assert float(total) == pytest.approx(sum(map(float, parts)), abs=3e-3)
        assert (float(parts[3]) > 0) == (epoch == "3")
        assert float(lr) > 0


def test_log_tells_what_runs_and_what_came_out(logged: Path) -> None:
    text = (logged / "train_log.txt").read_text(encoding="utf-8")
    assert "3 classes (circle, square, triangle), 9 training images, 3 epochs" in text
    assert "mosaic off and L1 loss on from here" in text
    assert "epoch 2: AP50-95 0." in text
    assert "epoch 1: AP" not in text
    assert "circle" in text.split("by class")[1]
    assert f"best AP50-95 0.000, in {logged / 'best_ckpt.pth'}" in text


def test_tensorboard_has_the_scalars(logged: Path) -> None:
    events = EventAccumulator(str(logged / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/total_loss", "train/iou_loss", "train/l1_loss", "train/conf_loss",
        "train/cls_loss", "train/lr", "train/images_per_second", "val/AP50-95", "val/AP50",
    }  # fmt: skip
    rates = events.Scalars("train/lr")
    assert [event.step for event in rates] == [2, 3, 5, 6, 8, 9]
    peak = 0.01 / 64 * 4
    assert rates[0].value == pytest.approx(peak * 4 / 9)
    assert rates[1].value == pytest.approx(peak)
    assert rates[-1].value == pytest.approx(peak * 0.05)
    assert [event.step for event in events.Scalars("val/AP50-95")] == [6, 9]
    l1 = [event.value for event in events.Scalars("train/l1_loss")]
    assert max(l1[:4]) == 0
    assert min(l1[4:]) > 0


def test_resume_logs_settings_that_changed(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--precision", "fp32", "-f", tiny_exp, "output_dir", tmp_path)
    assert command(train.main, *common, "max_epoch", 1, "seed", 3) == 0
    capsys.readouterr()
    fields = ("max_epoch", 2, "seed", 4, "momentum", 0.5, "mosaic_scale", "0.5,1.5")
    assert command(train.main, "--resume", *common, *fields) == 0
    log = capsys.readouterr().err
    assert "resumed after epoch 1 of 2" in log
    (warning,) = [line for line in log.splitlines() if " WARNING " in line]
    assert "max_epoch 1 → 2" in warning
    assert "seed 3 → 4" in warning
    assert "momentum 0.9 → 0.5" in warning
    assert "mosaic_scale [0.1, 2.0] → [0.5, 1.5]" in warning
    assert "batch_size" not in warning
    # What is said is what happens.
    groups = read(tmp_path / "tiny" / "latest_ckpt.pth")["train"]["optimizer"]["param_groups"]
    assert [group["momentum"] for group in groups] == [0.5] * 3


def test_checkpoint_holds_what_it_promises(trained: Path) -> None:
    content = read(trained / "latest_ckpt.pth")
    assert content.keys() == {"format", "version", "model", "spec", "recipe", "train"}
    assert (content["format"], content["version"]) == ("yolox-checkpoint", 1)
    assert content["spec"]["class_names"] == ["circle", "square", "triangle"]
    assert content["spec"]["input_size"] == [64, 64]
    state = content["train"]
    assert state["epoch"] == 2
    assert state["ema_updates"] == 2 * STEPS
    assert state["raw_model"].keys() == content["model"].keys()
    assert content["recipe"]["batch_size"] == 4
    best = read(trained / "best_ckpt.pth")
    assert best.keys() == content.keys() - {"train"}
    assert best["recipe"] == content["recipe"]
