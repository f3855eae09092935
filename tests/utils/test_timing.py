"""Timing: the order of calls, what counts, when it stops."""

from __future__ import annotations

import math

import pytest

from yolox.utils.timing import compared, interleave, take_turns, unsteadiness


class Clock:
    """Time that passes only when a work says so, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Takes the given times in turn, the last one for ever, and notes its calls."""

    def __init__(self, name: str, clock: Clock, calls: list[str], *seconds: float) -> None:
        self.name, self.clock, self.calls, self.seconds = name, clock, calls, list(seconds)

    def __call__(self) -> int:
        self.calls.append(self.name)
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return len(self.calls)


def test_works_take_turns_and_the_second_call_of_a_turn_counts() -> None:
    clock, calls = Clock(), []
    works = [Work(name, clock, calls, 1.0) for name in "abc"]
    results = take_turns(works, runs=2, warmup=1, clock=clock)
    assert "".join(calls) == "abc" + "aabbcc" * 2
    assert results == [[5, 11], [7, 13], [9, 15]]


def test_times_are_those_of_the_calls_that_count_in_milliseconds() -> None:
    clock, calls = Clock(), []
    # warm-up twice, then lead-in and timed call, three times
    slow = Work("slow", clock, calls, 9.0, 8.0, 7.0, 0.5, 7.0, 0.25, 7.0, 2.0)
    quick = Work("quick", clock, calls, 0.125)
    times = interleave([slow, quick], runs=3, warmup=2, clock=clock)
    assert times == [[500.0, 250.0, 2000.0], [125.0] * 3]


@pytest.mark.parametrize(
    ("seconds", "at_most", "rounds"),
    [
        (1.0, math.inf, 10),
        (1.0, 0.0, 3),  # never fewer than three
        # one warm-up round of 2 s, then 4 s a round: 18 s have passed after four, 22 s after five
        (1.0, 18.0, 5),
        (1.0, 17.9, 4),
    ],
)
def test_no_round_begins_after_at_most_seconds(seconds: float, at_most: float, rounds: int) -> None:
    clock, calls = Clock(), []
    works = [Work(name, clock, calls, seconds) for name in "ab"]
    times = interleave(works, runs=10, warmup=1, at_most=at_most, clock=clock)
    assert [len(record) for record in times] == [rounds, rounds]


def test_the_works_differ_though_they_come_from_one_loop() -> None:
    clock, calls = Clock(), []
    works = [Work(str(n), clock, calls, float(n)) for n in range(1, 4)]
    times = interleave(works, runs=1, warmup=0, clock=clock)
    assert times == [[1000.0], [2000.0], [3000.0]]


def test_nothing_to_time() -> None:
    assert interleave([], runs=2) == []


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [(30.0, 20.0, "1.50 × as fast"), (10.0, 17.1, "1.71 × as long"), (7.0, 7.0, "1.00 × as fast")],
)
def test_a_ratio_of_times_says_which_way_it_goes(before: float, after: float, told: str) -> None:
    assert compared(before, after) == told


def test_only_a_wide_spread_is_called_unsteady() -> None:
    assert unsteadiness([10.0, 11.0, 12.0, 15.0, 19.0]) == ""
    assert unsteadiness([10.0] * 19 + [500.0]) == ""  # a single outlier moves no median
    told = unsteadiness([1282.0, 2000.0, 3448.0, 5000.0, 8000.0])
    assert told == "median 3448.00 ms, but from 1282.00 to 6800.00 (fastest to slowest tenth)"
