"""The learning rate against recorded values, and at its corners."""

from __future__ import annotations

import itertools
import math

import pytest

from tests.helpers import golden_json
from yolox.utils.lr_scheduler import LRScheduler, WarmupCosineSchedule

RUN = WarmupCosineSchedule(
    lr=0.02,
    iters_per_epoch=10,
    total_epochs=30,
    warmup_epochs=3,
    warmup_lr_start=0.001,
    no_aug_epochs=5,
    min_lr_ratio=0.1,
)


def test_recorded_values() -> None:
    golden = golden_json("lr_yoloxwarmcos.json")
    arguments = {key: value for key, value in golden["args"].items() if key != "name"}
    schedule = WarmupCosineSchedule(**arguments)
    for iteration, lr in golden["lr"].items():
        assert schedule(int(iteration)) == pytest.approx(lr, rel=1e-12), iteration


def test_it_rises_then_falls_then_stays() -> None:
    rates = [RUN(i) for i in range(301)]
    assert rates[0] == 0.001
    assert rates[30] == pytest.approx(0.02)
    assert all(a < b for a, b in itertools.pairwise(rates[:31]))
    assert all(a > b for a, b in itertools.pairwise(rates[30:250]))
    assert all(rate == pytest.approx(0.002) for rate in rates[250:])
    assert rates[140] == pytest.approx((0.02 + 0.002) / 2)  # halfway down


def test_nothing_jumps() -> None:
    steps = [abs(RUN(i + 1) - RUN(i)) for i in range(300)]
    assert max(steps) < 0.02 * 2 / 30


@pytest.mark.parametrize(
    "lengths",
    [
        {"total_epochs": 10},
        {"total_epochs": 10, "no_aug_epochs": 10},
        {"total_epochs": 3, "warmup_epochs": 5},
        {"total_epochs": 5, "warmup_epochs": 3, "no_aug_epochs": 2},
        {"total_epochs": 4, "warmup_epochs": 3, "no_aug_epochs": 15},
        {"total_epochs": 1, "warmup_epochs": 0.5},
        {"total_epochs": 1, "iters_per_epoch": 1, "warmup_epochs": 1},
    ],
)
def test_runs_too_short_for_their_parts_have_a_rate_all_the_same(lengths: dict) -> None:
    schedule = WarmupCosineSchedule(**{"lr": 0.01, "iters_per_epoch": 7, **lengths})
    for iteration in range(1, schedule.total_epochs * schedule.iters_per_epoch + 2):
        rate = schedule(iteration)
        assert math.isfinite(rate)
        assert 0 < rate <= 0.01


# --------------------------------------------------------------------------------- by official name


def test_the_recorded_values_by_name() -> None:
    golden = golden_json("lr_yoloxwarmcos.json")
    schedule = LRScheduler(
        golden["args"]["name"], **{k: v for k, v in golden["args"].items() if k != "name"}
    )
    for iteration, lr in golden["lr"].items():
        assert schedule.update_lr(int(iteration)) == pytest.approx(lr, rel=1e-12)
        assert schedule(int(iteration)) == schedule.update_lr(int(iteration))


def test_a_straight_warm_up_and_a_cosine_to_zero() -> None:
    schedule = LRScheduler("warmcos", 1.0, 10, 5, warmup_epochs=1, warmup_lr_start=0.2)
    assert [schedule(i) for i in (0, 5, 10)] == pytest.approx([0.2, 0.6, 1.0])
    assert schedule(30) == pytest.approx(0.5)
    assert schedule(50) == pytest.approx(0.0)


def test_the_cosine_alone_has_no_warm_up() -> None:
    schedule = LRScheduler("cos", 2.0, 10, 4, warmup_epochs=2)
    assert [schedule(i) for i in (0, 20, 40)] == pytest.approx([2.0, 1.0, 0.0])


def test_steps_come_after_their_epochs() -> None:
    schedule = LRScheduler("multistep", 1.0, 10, 9, milestones=[6, 3], gamma=0.5)
    assert [schedule(i) for i in (1, 29, 30, 59, 60, 90)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of yoloxwarmcos, .*, got 'linear'"):
        LRScheduler("linear", 1.0, 10, 10)
