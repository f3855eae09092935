"""Few cases of a grid: where all values matter, and no more than some of them together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any


def covering(*axes: Sequence[Any], strength: int = 2) -> list[tuple[Any, ...]]:
    """Cases of a grid in which any values of `strength` axes meet at least once.

    Args:
        axes: the values of each axis.
        strength: of how many axes any values are to meet; of all of them, it is the whole grid.

    Returns:
        Cases in the order of the grid, the same ones each time.
    """
    grid = list(itertools.product(*axes))
    places = list(itertools.combinations(range(len(axes)), strength))

    def meetings(case: tuple[Any, ...]) -> set[tuple[Any, ...]]:
        return {(place, tuple(case[axis] for axis in place)) for place in places}

    missing = set().union(*map(meetings, grid))
    chosen = set()
    while missing:
        best = max(range(len(grid)), key=lambda row: len(meetings(grid[row]) & missing))
        chosen.add(best)
        missing -= meetings(grid[best])
    return [grid[row] for row in sorted(chosen)]
