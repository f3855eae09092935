"""Shares of the groups chosen by what the refitted model loses: moves of channels at equal cost.

A hill is climbed by random moves, as in (1 + 1) evolution: some groups get channels back, others
pay for them, and the plan stays where the loss after refitting falls. Frantar and Alistarh 2022
(SPDY, arXiv:2201.13096) search for the shares of layers by the loss on calibration data too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from yolox.pruning.allocate import allowed_removals
from yolox.pruning.balance import bundles, merge_bundles
from yolox.pruning.config import PruneConfig
from yolox.pruning.cost import SlotCosts
from yolox.pruning.groups import Group

LARGEST_MOVE = 0.25  # of a group's choices
Shares = tuple[int, ...]  # of each bundle of groups: how many slots go


class Space:
    """The plans that a search chooses from: how many slots each group loses, in a fixed order."""

    def __init__(
        self,
        groups: Sequence[Group],
        scores: Sequence[Tensor],
        config: PruneConfig,
        costs: Callable[[Sequence[Group]], SlotCosts],
        budget: float,
    ) -> None:
        """Take stock.

        Args:
            groups: those that may lose slots.
            scores: one tensor (slots,) a group; the slots with the lowest go first.
            config: alignment, floor and cap.
            costs: of groups, those of a bundle merged into one.
            budget: most that a plan may cost.
        """
        merged = merge_bundles(groups)
        self._groups, self._bundles = groups, bundles(groups)
        self._order = [score.double().argsort(stable=True).tolist() for score in scores]
        self._sizes = [group.size for group in merged]
        self._allowed = [allowed_removals(group.size, config) for group in merged]
        self._costs, self._budget = costs(merged), budget

    def removed(self, shares: Shares) -> dict[str, tuple[int, ...]]:
        """The slots of each group that go."""
        return {
            self._groups[number].name: tuple(sorted(self._order[number][:count]))
            for numbers, count in zip(self._bundles, shares, strict=True)
            for number in numbers
            if count
        }

    def shares(self, removed: Mapping[str, Sequence[int]]) -> Shares:
        """How many slots each bundle of groups loses by a plan."""
        return tuple(len(removed.get(self._groups[n[0]].name, ())) for n in self._bundles)

    def fits(self, shares: Sequence[int]) -> bool:
        """Whether what is left costs no more than the budget."""
        kept = [size - count for size, count in zip(self._sizes, shares, strict=True)]
        return self._costs.at(kept) <= self._budget

    def fitted(self, shares: Shares) -> Shares | None:
        """The shares, and where they cost too much, more of what has lost the least so far.

        Equal shares of channels are rounded to what groups may lose, which can be too few.

        Returns:
            None where that is out of reach.
        """
        steps = [a.index(n) for a, n in zip(self._allowed, shares, strict=True)]
        while not self.fits(self._counts(steps)):
            able = [n for n, step in enumerate(steps) if step + 1 < len(self._allowed[n])]
            if not able:
                return None
            least = min(able, key=lambda n: self._allowed[n][steps[n] + 1] / self._sizes[n])
            steps[least] += 1
        return self._counts(steps)

    def move(self, shares: Shares, rng: np.random.Generator) -> Shares | None:
        """Shares of about the same cost, in which one group at least keeps more.

        Returns:
            None where there are none.
        """
        steps = [a.index(n) for a, n in zip(self._allowed, shares, strict=True)]
        losing = [number for number, step in enumerate(steps) if step]
        if not losing:
            return None
        grown = int(rng.choice(losing))
        most = max(1, round(LARGEST_MOVE * len(self._allowed[grown])))
        steps[grown] -= min(steps[grown], int(rng.integers(1, most + 1)))
        paying = set()
        while not self.fits(self._counts(steps)):
            able = [
                number
                for number, step in enumerate(steps)
                if number != grown and step + 1 < len(self._allowed[number])
            ]
            if not able:
                return None
            payer = int(rng.choice(able))
            steps[payer] += 1
            paying.add(payer)
        # What the payers gave too much goes to others.
        for number in rng.permutation(len(steps)).tolist():
            while number not in paying and steps[number]:
                steps[number] -= 1
                if not self.fits(self._counts(steps)):
                    steps[number] += 1
                    break
        moved = self._counts(steps)
        return None if moved == shares else moved

    def _counts(self, steps: Sequence[int]) -> Shares:
        return tuple(allowed[step] for allowed, step in zip(self._allowed, steps, strict=True))


class Objective(Protocol):
    """What a search wants low."""

    def loss(self, shares: Shares) -> float:
        """The loss of shares."""

    def keep(self) -> None:
        """The shares that `loss` was asked for last are those that the search goes on from."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search has come: all that it needs to go on.

    Attributes:
        start: which start it went on from.
        starts: the loss of each start by name.
        shares: the best so far.
        loss: theirs.
        tried: moves so far.
        better: number and loss of each move that was better than all before.
    """

    start: str
    starts: dict[str, float]
    shares: Shares
    loss: float
    tried: int = 0
    better: tuple[tuple[int, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        pairs = [list(pair) for pair in self.better]
        return vars(self) | {"shares": list(self.shares), "better": pairs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of `to_dict`."""
        better = tuple((int(number), float(loss)) for number, loss in values["better"])
        starts = {name: _loss_of(value) for name, value in values["starts"].items()}
        read = {"shares": tuple(values["shares"]), "better": better, "starts": starts}
        return cls(**{**values, **read, "loss": _loss_of(values["loss"])})

    def sentence(self) -> str:
        """What the moves were worth."""
        if not self.better:
            return (
                f"none of {self.tried} moves lowers the loss after refitting, {self.loss:.3f}: the "
                f"shares of {self.start} stay"
            )
        return (
            f"{len(self.better)} of {self.tried} moves lower the loss after refitting from "
            f"{self.starts[self.start]:.3f} (shares of {self.start}) to {self.loss:.3f}"
        )


def _loss_of(value: float | None) -> float:
    """A loss as JSON has it, which has no infinite ones."""
    return math.inf if value is None else value


def search(
    space: Space,
    starts: Mapping[str, Shares],
    objective: Objective,
    moves: int,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[Progress]:
    """Try moves from the best start, and go on from each that lowers the loss.

    Args:
        space: the plans.
        starts: shares to start from, by name.
        objective: the loss of shares.
        moves: how many to try, those of `progress` included.
        seed: decides the moves, each by its number, so that a search that goes on is the same.
        progress: of an earlier search, to go on from.

    Yields:
        How far it has come, after the starts and after each move.
    """
    if progress is None:
        losses = {name: objective.loss(shares) for name, shares in starts.items()}
        best = min(losses, key=lambda name: losses[name])
        progress = Progress(start=best, starts=losses, shares=starts[best], loss=losses[best])
    if progress.tried < moves:
        objective.loss(progress.shares)
        objective.keep()
    yield progress
    while progress.tried < moves:
        rng = np.random.default_rng((seed, progress.tried))
        moved = space.move(progress.shares, rng)
        better, loss = list(progress.better), progress.loss
        if moved is not None and (now := objective.loss(moved)) < loss:
            objective.keep()
            loss = now
            better.append((progress.tried + 1, now))
        progress = replace(
            progress,
            shares=moved if moved is not None and loss < progress.loss else progress.shares,
            loss=loss,
            tried=progress.tried + 1,
            better=tuple(better),
        )
        yield progress
