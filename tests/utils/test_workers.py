import multiprocessing
import os
import signal
import sys
from functools import partial

import pytest
import torch

from yolox.utils.workers import in_processes, processes_to_use

forked = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks on Linux alone")


def squared(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


@forked
@pytest.mark.parametrize("items", [[], [3], list(range(7))])
def test_results_come_in_order_from_other_processes(items):
    results = list(in_processes(squared, items, 3))
    assert [value for value, _ in results] == [i * i for i in items]
    if len(items) > 1:
        pids = {pid for _, pid in results}
        assert len(pids) == 3
        assert os.getpid() not in pids
    assert not multiprocessing.active_children()


def test_one_process_does_it_alone():
    assert {pid for _, pid in in_processes(squared, range(4), 1)} == {os.getpid()}


def tensor_of(number: int) -> torch.Tensor:
    return torch.full((3,), number)


@forked
def test_tensors_outlive_the_process_that_made_them():
    results = list(in_processes(tensor_of, range(4), 2))
    assert [t.tolist() for t in results] == [[i] * 3 for i in range(4)]


def at_home_only(home: int, way: str, number: int) -> int:
    if os.getpid() != home and number == 2:
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError("too many open files")
    return number


@forked
@pytest.mark.parametrize("way", ["killed", "failed"])
def test_what_a_process_did_not_do_is_done_here(way):
    function = partial(at_home_only, os.getpid(), way)
    assert list(in_processes(function, range(9), 2)) == list(range(9))


def refuse(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


@forked
def test_an_error_is_raised_where_its_item_stands():
    results = in_processes(refuse, range(9), 2)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert not multiprocessing.active_children()


@forked
def test_whoever_stops_early_leaves_no_process():
    results = in_processes(squared, range(100), 2)
    next(results)
    results.close()
    assert not multiprocessing.active_children()


@forked
def test_a_system_that_gives_no_process(monkeypatch):
    def none_left(self: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", none_left)
    assert {pid for _, pid in in_processes(squared, range(4), 2)} == {os.getpid()}


@pytest.mark.parametrize(
    ("daemon", "platform", "ranks", "count"),
    [(False, "linux", 1, 8), (False, "linux", 4, 2), (False, "linux", 16, 1), (True, "linux", 1, 1),
     (False, "darwin", 1, 1), (False, "win32", 1, 1)],
)  # fmt: skip
def test_how_many_processes_share_the_work(monkeypatch, daemon, platform, ranks, count):
    monkeypatch.setattr("yolox.utils.workers.cores", lambda: 8)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", daemon)  # type: ignore[attr-defined]
    assert processes_to_use() == count
