from pathlib import Path

import pytest
import torch

from yolox.utils import contention
from yolox.utils.contention import ContentionWatch


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(contention, "time", clock)
    return clock


def account(tasks: Path, **threads: tuple[float, float]) -> None:
    """Write seconds (run, waited) of threads as Linux does."""
    for name, (run, waited) in threads.items():
        (tasks / name).mkdir(exist_ok=True)
        (tasks / name / "schedstat").write_text(f"{run * 1e9:.0f} {waited * 1e9:.0f} 17\n")


def test_contention_is_told_once_by_what_the_interval_was(tmp_path: Path, clock: Clock) -> None:
    account(tmp_path, a=(100.0, 900.0), b=(5.0, 5.0))
    watch = ContentionWatch(tmp_path)
    clock.now = 30.0
    account(tmp_path, a=(112.0, 900.0), b=(13.0, 13.0))  # 20 s run, 8 s waited
    assert watch.advice() is None
    clock.now = 60.0
    account(tmp_path, a=(117.0, 905.0), b=(18.0, 17.0))  # as beside one busy process
    said = watch.advice()
    assert said is not None
    assert "waited 0.9 s" in said
    clock.now = 90.0
    account(tmp_path, a=(117.0, 999.0))
    assert watch.advice() is None


def test_contention_of_a_moment_is_not_told(tmp_path: Path, clock: Clock) -> None:
    account(tmp_path, a=(0.0, 0.0))
    watch = ContentionWatch(tmp_path)
    clock.now = 5.0
    account(tmp_path, a=(1.0, 9.0))
    assert watch.advice() is None
    clock.now = 25.0
    account(tmp_path, a=(21.0, 9.0))
    assert watch.advice() is None


def test_contention_counts_threads_that_begin_and_end(tmp_path: Path, clock: Clock) -> None:
    account(tmp_path, gone=(50.0, 500.0))
    watch = ContentionWatch(tmp_path)
    (tmp_path / "gone" / "schedstat").unlink()
    account(tmp_path, new=(4.0, 12.0))
    clock.now = 40.0
    said = watch.advice()
    assert said is not None
    assert "waited 3.0 s" in said


@pytest.mark.parametrize(("threads", "advised"), [(1, False), (2, True)])
def test_contention_advises_one_thread_only_to_several(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, threads: int, advised: bool
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    watch = ContentionWatch(tmp_path)
    account(tmp_path, a=(1.0, 19.0))
    clock.now = 20.0
    said = watch.advice()
    assert said is not None
    assert ("OMP_NUM_THREADS=1" in said) is advised


def test_contention_is_not_told_where_the_system_does_not_account(
    tmp_path: Path, clock: Clock
) -> None:
    watch = ContentionWatch(tmp_path / "nowhere")
    clock.now = 100.0
    assert watch.advice() is None
