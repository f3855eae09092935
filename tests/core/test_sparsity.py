"""When the penalty acts in training: once a step, unscaled, in every process; and the average."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from tests.e2e.forks import Forked, two_ranks
from tests.runs import STEPS, command, differences, error_lines, new_trainer, read, write_exp
from yolox.core import Trainer
from yolox.core.loggers import RunInfo, RunLoggers, TensorBoard
from yolox.core.penalty import PenaltyWatch
from yolox.exp import Exp
from yolox.jobs.train import TrainOptions
from yolox.jobs.train.sparsity import build_sparsity
from yolox.tools import prunmodel, train
from yolox.utils.ema import ModelEMA
from yolox.utils.model_utils import fuse_model

ONE_STEP: dict[str, Any] = {"max_epoch": 1, "no_aug_epochs": 0, "eval_interval": 9, "ema": False}


def _scales(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight.detach().clone()
        for name, module in trainer.model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }


def _run(exp: Path, output: Path, **fields: Any) -> tuple[Trainer, dict[str, Tensor]]:
    """A finished run and the scales that it started from."""
    trainer = new_trainer(exp, output, **fields)
    trainer.evaluate = lambda _: (0.0, 0.0, "")
    before = _scales(trainer)
    trainer.train()
    return trainer, before


def _moved_by_penalty(exp: Path, output: Path, **fields: Any) -> tuple[Tensor, float]:
    """How far one epoch's only update moves each γ more with a penalty of 0.1; and its rate."""
    plain, before = _run(exp, output / "plain", **fields)
    sparse, same = _run(exp, output / "sparse", **fields, sparsity=0.1)
    assert differences(before, same) == []
    moved, reference = _scales(sparse), _scales(plain)
    assert all(bool((value > 0.5).all()) for value in before.values())
    return (
        torch.cat([moved[n] - reference[n] for n in moved]),
        sparse.optimizer.param_groups[0]["lr"],
    )


# --------------------------------------------------------------------------------- once an update


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("proximal", [True, False])
def test_accumulation_applies_it_once_a_step(
    tiny_exp: Path, tmp_path: Path, proximal: bool, precision: str
) -> None:
    """Three batches make the epoch's one update."""
    change, lr = _moved_by_penalty(
        tiny_exp,
        tmp_path,
        accumulate=4,
        sparsity_proximal=proximal,
        precision=precision,
        **ONE_STEP,
    )
    # Nesterov's first step goes (1 + momentum) gradients far; the threshold is that of a run.
    pull = lr * 0.1 * (10 if proximal else 1.9)
    assert lr > 1e-4
    torch.testing.assert_close(change, torch.full_like(change, -pull), rtol=1e-2, atol=0)


def test_groups_of_four_and_what_is_left_are_a_step_each(tiny_exp: Path, tmp_path: Path) -> None:
    """Nine batches of one image: updates after the fourth, the eighth and the ninth."""
    fields = {**ONE_STEP, "accumulate": 4, "batch_size": 1, "warmup_epochs": 0}
    trainer = new_trainer(tiny_exp, tmp_path, sparsity=0.1, **fields)
    trainer.evaluate = lambda _: (0.0, 0.0, "")
    assert trainer.regularizer is not None
    shrink = trainer.regularizer.shrink
    steps: list[tuple[float, float, Tensor]] = []

    def seen(lr: float, progress: float) -> None:
        before = torch.cat(list(_scales(trainer).values()))
        shrink(lr, progress)
        steps.append((lr, progress, torch.cat(list(_scales(trainer).values())) - before))

    trainer.regularizer.shrink = seen  # type: ignore[method-assign]
    trainer.train()
    assert [progress for _, progress, _ in steps] == pytest.approx([4 / 9, 8 / 9, 1])
    assert [lr for lr, _, _ in steps] == [trainer.schedule(iteration) for iteration in (4, 8, 9)]
    for lr, _, change in steps:
        torch.testing.assert_close(
            change, torch.full_like(change, -lr * 0.1 * 10), rtol=0, atol=1e-7
        )


def test_synchronised_batch_norms_are_penalised_kept_and_pruned_alike(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single process has nothing to synchronise: the bits are those of plain ones."""
    file = tmp_path / "sync.py"
    file.write_text(
        tiny_exp.read_text()
        + """
    def get_model(self):
        from torch import nn
        return nn.SyncBatchNorm.convert_sync_batchnorm(super().get_model())
"""
    )
    for exp, folder in ((tiny_exp, "plain"), (file, "sync")):
        trainer = new_trainer(exp, tmp_path / folder, sparsity=0.1, max_epoch=1)
        kinds = {type(m) for m in trainer.model.modules() if "Norm" in type(m).__name__}
        assert kinds == {nn.SyncBatchNorm if folder == "sync" else nn.BatchNorm2d}
        trainer.train()
    files = [tmp_path / folder / "tiny" / "latest_ckpt.pth" for folder in ("plain", "sync")]
    assert differences(*map(read, files)) == []

    small = tmp_path / "small.pth"
    words = ("-c", files[1], "-o", small, "--importance", "bn", "--reconstruct", 0, "--no-latency")
    assert command(prunmodel.main, *words, "-f", file) == 0, capsys.readouterr().err
    for options in (
        TrainOptions(resume=True, checkpoint=files[1]),
        TrainOptions(checkpoint=small),
    ):
        model = new_trainer(file, tmp_path, options=options, sparsity=0.1).model.double()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        fused = fuse_model(model)
        assert not any("Norm" in type(module).__name__ for module in fused.modules())
        x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
        torch.testing.assert_close(fused(x), model.eval()(x))


def _fp16_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric's fp16, its loss scaled by 256: at 65536 a new model's gradients are not finite."""
    monkeypatch.setattr("yolox.core.fabric.resolve_precision", lambda *_: "fp16")
    monkeypatch.setattr("torch.amp.GradScaler", partial(torch.amp.GradScaler, init_scale=256.0))


@pytest.mark.parametrize("proximal", [True, False])
def test_a_scaled_loss_does_not_scale_it_away(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proximal: bool
) -> None:
    _fp16_on_the_cpu(monkeypatch)
    plain, before = _run(tiny_exp, tmp_path, accumulate=4, **ONE_STEP)
    scaler: Any = plain.fabric.strategy.precision.scaler  # type: ignore[attr-defined]
    assert scaler.get_scale() == 256
    assert differences(before, _scales(plain))
    change, lr = _moved_by_penalty(
        tiny_exp, tmp_path, accumulate=4, sparsity_proximal=proximal, **ONE_STEP
    )
    pull = lr * 0.1 * (10 if proximal else 1.9)
    torch.testing.assert_close(change, torch.full_like(change, -pull), rtol=2e-2, atol=0)


@pytest.mark.parametrize("proximal", [True, False])
def test_a_step_that_the_scaler_leaves_out_moves_no_scale(
    tiny_exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proximal: bool
) -> None:
    _fp16_on_the_cpu(monkeypatch)
    trainer = new_trainer(
        tiny_exp, tmp_path, accumulate=4, sparsity=0.1, sparsity_proximal=proximal, **ONE_STEP
    )
    trainer.evaluate = lambda _: (0.0, 0.0, "")
    bias = trainer.model.head.obj_preds[0].bias
    assert bias is not None
    bias.register_hook(lambda gradient: gradient * float("inf"))
    before = _scales(trainer)
    trainer.train()
    assert trainer.fabric.strategy.precision.scaler.get_scale() == 128  # type: ignore[attr-defined]
    assert differences(before, _scales(trainer)) == []
    left = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert left
    assert not any(momentum.any() for momentum in left)


# ------------------------------------------------------------------------------ several processes

# Statistics of each process's own images would differ; a rate at which the penalty shows.
_FROZEN_STATISTICS = """
        self.basic_lr_per_img = 0.02
        self.sparsity = 0.1
        self.sparsity_form = "group"
        self.sparsity_proximal = {proximal}

    def get_model(self):
        model = super().get_model()
        for module in model.modules():
            if "BatchNorm" in type(module).__name__:
                module.eval()
        return model
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about processes on the CPU")
@pytest.mark.parametrize("proximal", [True, False])
def test_two_processes_shrink_as_one_does(devkit: Path, tmp_path: Path, proximal: bool) -> None:
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        more = _FROZEN_STATISTICS.format(proximal=proximal)
        exp = write_exp(folder / "exp.py", devkit, folder / "out", more)
        args = ("-f", exp, "accumulate", 2)
        if name == "one":
            ends = [Forked(folder / "log", "--precision", "fp32", *args).finish()]
        else:
            ends = two_ranks(folder, *args)
        assert [status for status, _ in ends] == [0] * len(ends), ends
        contents.append(read(folder / "out" / "tiny" / "latest_ckpt.pth"))
    one, two = (content["train"]["raw_model"] for content in contents)
    scales = [name for name in one if name.endswith("bn.weight")]
    assert max(float(one[name].abs().max()) for name in scales) < 0.97  # all began at 1
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)


# ---------------------------------------------------------------------------------------- average


def test_checkpoints_carry_the_zeros_of_the_weights(tiny_exp: Path, tmp_path: Path) -> None:
    """The average of a γ that has just reached 0 is not 0; it is what gets evaluated and saved."""
    seen: list[float] = []

    def evaluate(model: nn.Module) -> tuple[float, float, str]:
        scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        seen.append(float((torch.cat(scales) == 0).float().mean()))
        return 0.0, 0.0, ""

    trainer = new_trainer(
        tiny_exp, tmp_path, sparsity=1.0, sparsity_proximal=True, basic_lr_per_img=0.02
    )
    trainer.ema = ModelEMA(trainer.model, decay=0.9, ramp=1e-9)
    before = _scales(trainer)
    trainer.evaluate = evaluate
    trainer.train()
    content = read(tmp_path / "tiny" / "latest_ckpt.pth")
    average, raw = content["model"], content["train"]["raw_model"]
    zero = torch.cat([raw[name] == 0 for name in before])
    assert float(zero.float().mean()) > 0.3
    saved = torch.cat([average[name] for name in before])
    assert not saved[zero].any()
    assert seen[-1] == float((saved == 0).float().mean())
    # Where the weights are not 0 the average is one: it has not been taken from them.
    others = [name for name in average if name.endswith("conv.weight")]
    assert len(differences({n: average[n] for n in others}, {n: raw[n] for n in others})) > 50


def test_a_resumed_run_has_the_bits_of_the_straight_one(tiny_exp: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"sparsity": 0.5, "sparsity_warmup": 0.2, "sparsity_shift": 0.1}
    fields |= {"sparsity_schedule": "linear", "sparsity_form": "group", "basic_lr_per_img": 0.02}
    _run(tiny_exp, tmp_path / "straight", max_epoch=2, **fields)
    trainer = new_trainer(tiny_exp, tmp_path / "resumed", max_epoch=2, **fields)
    trainer.evaluate = lambda _: (0.0, 0.0, "")
    steps = 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps > STEPS:
            raise KeyboardInterrupt

    trainer.optimizer.register_step_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    options = TrainOptions(resume=True)
    _run(tiny_exp, tmp_path / "resumed", max_epoch=2, options=options, **fields)
    runs = [read(tmp_path / n / "tiny" / "latest_ckpt.pth") for n in ("straight", "resumed")]
    assert differences(*runs) == []


# ------------------------------------------------------------------------------- command and files


def test_command_logs_and_draws_the_scales(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--precision", "fp32", "-f", tiny_exp, "--sparsity", "1e-3")
    fields = ("output_dir", tmp_path, "max_epoch", 2)
    assert command(train.main, *common, *fields) == 0
    log = capsys.readouterr().err
    lines = [line for line in log.splitlines() if " iter " in line]
    assert len(lines) == 2 * STEPS
    assert all(line.endswith("  γ < 0.01: 0 %") for line in lines)
    (warning,) = [line for line in log.splitlines() if "sparsity 0.001 is weak" in line]
    assert log.index(warning) < log.index(" iter ")
    assert "the median of |γ| is 1: it takes more epochs or" in warning
    events = EventAccumulator(str(tmp_path / "tiny" / "tensorboard"), {"histograms": 0})
    events.Reload()
    names = {f"sparsity/quantile_{q}" for q in (0, 25, 50, 75, 100)}
    assert names | {"sparsity/below_0.01", "sparsity/below_0.1"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Histograms("gamma")] == [STEPS, 2 * STEPS]
    assert "gamma/head.stems.0.bn" in events.Tags()["histograms"]
    assert read(tmp_path / "tiny" / "latest_ckpt.pth")["recipe"]["sparsity"] == 1e-3

    changed = ("--resume", *common[:-1], "2e-3")
    assert command(train.main, *changed, "output_dir", tmp_path, "max_epoch", 2) == 0
    assert "sparsity 0.001 → 0.002" in capsys.readouterr().err


class _Figures:
    """A penalty that does nothing, for what is told of it."""

    name = "sparsity 0.05"

    def __init__(self, scales: list[float]) -> None:
        self._scales = iter(scales)

    def scale(self) -> float:
        return next(self._scales)

    def text(self) -> str:
        return "γ < 0.01: 7 %"

    def histograms(self) -> dict[str, Tensor]:
        return {}


@pytest.mark.parametrize(
    ("epochs", "scale", "words"),
    [
        # (loss, AP, best before) by epoch, and the median scale, at first 0.8, in all of them.
        ([(4.2, None, -1.0), (4.0, 0.5, -1.0), (4.7, 0.3, 0.5), (None, 0.55, 0.5)], 0.1, ""),
        # One epoch of noise, or two that are not in a row.
        ([(4.0, None, -1.0), (5.6, None, -1.0), (4.7, None, -1.0), (5.6, 0.0, -1.0)], 0.1, ""),
        ([(4.2, None, -1.0), (4.0, None, -1.0), (4.9, None, -1.0), (5.6, 0.0, -1.0), (6, 0, -1)],
         0.1, "the loss rose from 4.00 to 5.60 by epoch 4 (γ < 0.01: 7 %); to keep AP, start"),
        ([(4.2, 0.5, -1.0), (4.2, 0.2, 0.5), (9.0, 0.1, 0.5)], 0.1,
         "AP50-95 fell from 0.500 to 0.200 by epoch 2"),
        # An AP that never was one; a penalty that has not moved anything.
        ([(4.2, 0.01, -1.0), (4.2, 0.0004, 0.01)], 0.1, ""),
        ([(4.0, 0.5, -1.0), (5.2, 0.1, 0.5), (5.6, 0.1, 0.5)], 0.75, ""),
    ],
)  # fmt: skip
def test_a_penalty_that_ruins_the_model_is_told_once(
    epochs: list[tuple[float | None, float | None, float]], scale: float, words: str
) -> None:
    figures: Any = _Figures([0.8] + [scale] * len(epochs))
    watch = PenaltyWatch(figures, lambda _: 0.1, max_epoch=9, steps=9, accumulate=1)
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING")
    try:
        for done, (loss, ap, best) in enumerate(epochs, start=1):
            watch.epoch(done, RunLoggers(()), loss=loss, ap=ap, best=best)
    finally:
        logger.remove(sink)
    assert len(told) == bool(words)
    if words:
        assert "sparsity 0.05 seems too strong for this model" in told[0]
        assert words in told[0]


def test_a_run_that_a_penalty_ruins_is_told(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields: dict[str, Any] = {"sparsity": 0.2, "max_epoch": 3, "eval_interval": 1}
    trainer = new_trainer(tiny_exp, tmp_path, basic_lr_per_img=0.02, **fields)
    figures = iter([(0.4, 0.5, ""), (0.1, 0.2, ""), (0.1, 0.2, "")])
    trainer.evaluate = lambda _: next(figures)
    trainer.train()
    log = capsys.readouterr().err
    assert log.index("sparsity 0.2 is above 0.1") < log.index("epoch 1/3")
    assert log.count("AP50-95 fell from 0.400 to 0.100 by epoch 2") == 1

    # A run that goes on is judged as a whole: little is left of it.
    options = TrainOptions(resume=True)
    trainer = new_trainer(tiny_exp, tmp_path, options=options, **(fields | {"max_epoch": 4}))
    trainer.evaluate = lambda _: (0.1, 0.2, "")
    trainer.train()
    assert "is above 0.1" not in capsys.readouterr().err


def test_a_strength_given_twice_is_refused(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-f", tiny_exp, "--sparsity", 0.1, "output_dir", tmp_path, "sparsity", 0.2)
    assert command(train.main, *words) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "give one of them" in error


def test_command_refuses_what_cannot_work(
    tiny_exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command(
        train.main, "-f", tiny_exp, "--sparsity", "-1", "output_dir", tmp_path,
        "sparsity_form", "l7",
    )  # fmt: skip
    assert status == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "sparsity: strength must be above 0" in error
    assert "form must be one of l1, group: 'l7'" in error
    assert not list(tmp_path.iterdir())


def test_a_run_without_it_has_no_trace_of_it(trained: Path) -> None:
    assert not any("sparsity" in key for key in read(trained / "latest_ckpt.pth")["recipe"])
    assert "γ" not in (trained / "train_log.txt").read_text(encoding="utf-8")


def test_histograms_hold_every_value(tmp_path: Path) -> None:
    values = torch.tensor([[0.0, 0.0, 0.25], [0.5, 0.75, 2.0]])
    with RunLoggers([TensorBoard()], RunInfo(folder=tmp_path, fields={}, resumed=False)) as loggers:
        loggers.histogram(7, "all", values)
        loggers.histogram(8, "all", torch.ones(5))
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"histograms": 0})
    events.Reload()
    first, second = events.Histograms("all")
    told = first.histogram_value
    assert (first.step, told.num, told.min, told.max, told.sum) == (7, 6, 0, 2, 3.5)
    assert told.sum_squares == pytest.approx(4.875)
    assert sum(told.bucket) == 6
    assert told.bucket[:2] == [0, 2]
    assert told.bucket_limit[0] == 0
    assert np.all(np.diff(told.bucket_limit) > 0)
    assert sum(second.histogram_value.bucket) == 5


def test_weight_decay_on_the_scales_is_told(tiny_exp: Path, tmp_path: Path) -> None:
    trainer = new_trainer(tiny_exp, tmp_path, sparsity=0.1)
    exp = Exp()
    exp.sparsity = 0.1
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING")
    try:
        build_sparsity(exp, trainer.model, trainer.optimizer)
        assert not told
        own = torch.optim.SGD(trainer.model.parameters(), lr=0.1, weight_decay=1e-4)
        build_sparsity(exp, trainer.model, own)
    finally:
        logger.remove(sink)
    assert "weight decay on the scales of" in told[0]
