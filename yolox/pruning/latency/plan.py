"""Plans for a measured latency: the knapsack's, corrected by what their models really take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from yolox.pruning.allocate import allowed_removals
from yolox.pruning.balance import bundles
from yolox.pruning.config import LatencyTarget, PruneConfig, PruningError
from yolox.pruning.cost import SlotCosts
from yolox.pruning.groups import Group
from yolox.pruning.hint import ThresholdHint, threshold_hint
from yolox.pruning.importance import Scorer
from yolox.pruning.latency.knapsack import Item, cheapest, solve
from yolox.pruning.plan import PruningPlan, make_plan
from yolox.pruning.surgery import mask_plan

MAX_TRIES = 6  # models measured
STOP_TOLERANCE = 0.02  # relative to the target: near enough to stop
LATENCY_TOLERANCE = 0.05  # relative to the target: met


class LatencyPlanner:
    """Slots scored once, and the best plan within any number of milliseconds."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        chosen: Sequence[Group],
        config: PruneConfig,
        costs: SlotCosts,
        scorer: Scorer,
        *,
        emptiable: Collection[str] = (),
        on_hint: Callable[[ThresholdHint], None] | None = None,
    ) -> None:
        """Score the slots; those of a round that silences some leave these at the end.

        Args:
            model: the whole one.
            groups: all groups of the model.
            chosen: those that may lose slots.
            config: the floor, the cap and the steps of each group.
            costs: predicted milliseconds, of the chosen groups' bundles in their order, each
                merged into one group.
            scorer: of the config's criterion.
            emptiable: groups that may lose all their slots.
            on_hint: called with what a single threshold could do, before the first cut.
        """
        self._groups, self._chosen, self._config, self._costs = groups, chosen, config, costs
        self._bundles = bundles(chosen)
        self._sizes = [chosen[numbers[0]].size for numbers in self._bundles]
        self._removals = [
            allowed_removals(size, config, empty=chosen[numbers[0]].name in emptiable)
            for size, numbers in zip(self._sizes, self._bundles, strict=True)
        ]
        self._model, self._scorer = model, scorer
        first = scorer(model, chosen)
        if on_hint is not None:
            on_hint(threshold_hint(chosen, first, config))
        # Slots of each group from the first to go to the last, with their scores.
        self._order = [_rising(scores) for scores in first]

    @property
    def whole(self) -> float:
        """Predicted milliseconds of the model as it is."""
        return self._costs.at(self._sizes)

    def least(self) -> float:
        """Predicted milliseconds of the fastest model within floors, caps and alignment."""
        return self._costs.at(cheapest(self._items(), self._costs))

    def rescore(self, budget: float) -> None:
        """The rounds of scoring after the first, on the way to a number of milliseconds.

        A slot that is silenced in a round keeps its last score, and goes before those that are
        left.
        """
        rounds = self._config.scorings
        gone = [0] * len(self._bundles)
        for turn in range(1, rounds):
            part = self.whole - turn / rounds * (self.whole - budget)
            gone = self._counts(part, gone)
            removed = self._slots(gone)
            if not removed:
                continue
            masked = mask_plan(
                self._model, self._groups, make_plan(self._groups, removed, self._config)
            )
            scores = self._scorer(masked, self._chosen)
            for numbers, count in zip(self._bundles, gone, strict=True):
                for n in numbers:
                    slots, values = self._order[n]
                    self._order[n] = _rising(scores[n], slots[:count], values[:count])

    def plan(self, budget: float) -> tuple[PruningPlan, float]:
        """The plan for a number of milliseconds, and those that are predicted of it.

        Raises:
            PruningError: nothing would be removed, or no plan is within the budget.
        """
        counts = self._counts(budget)
        kept = [size - count for size, count in zip(self._sizes, counts, strict=True)]
        return make_plan(self._groups, self._slots(counts), self._config), self._costs.at(kept)

    def _items(self, gone: Sequence[int] | None = None) -> list[Item]:
        items = []
        for number, (size, removals) in enumerate(zip(self._sizes, self._removals, strict=True)):
            least = gone[number] if gone else 0
            kept = np.array(sorted(size - r for r in removals if r >= least))
            scores = torch.stack([self._order[n][1] for n in self._bundles[number]]).sum(0)
            values = scores.double().flip(0).cumsum(0).numpy()
            values = np.concatenate(([0.0], values))
            items.append(Item(counts=kept, values=values[kept]))
        return items

    def _counts(self, budget: float, gone: Sequence[int] | None = None) -> list[int]:
        """Slots that each group of a bundle loses, at least those gone."""
        kept = solve(self._items(gone), self._costs, budget)
        if kept is None:
            raise PruningError(
                f"{self._config.budget()} cannot be reached: {self.least():.2f} ms of "
                f"{self.whole:.2f} are predicted at least"
            )
        return [size - count for size, count in zip(self._sizes, kept, strict=True)]

    def _slots(self, counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return {
            self._chosen[n].name: tuple(sorted(self._order[n][0][:count].tolist()))
            for numbers, count in zip(self._bundles, counts, strict=True)
            for n in numbers
            if count
        }


def _rising(
    scores: Tensor, gone: Tensor | None = None, gone_scores: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Slots (n,) that are gone, then the others by rising score; and the scores in that order."""
    values, slots = scores.double().cpu().sort(stable=True)
    if gone is None or gone_scores is None:
        return slots, values
    left = ~torch.isin(slots, gone)
    return torch.cat((gone, slots[left])), torch.cat((gone_scores, values[left]))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A model that was measured on the way to a target, in milliseconds.

    Attributes:
        budget: that the plan was made for, in predicted milliseconds.
        predicted: of the plan.
        parent, result: measured, in turns.
    """

    budget: float
    predicted: float
    parent: float
    result: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was tried, and which came nearest.

    Attributes:
        attempts: in their order.
        best: number of the one that was chosen.
        plan: its plan.
    """

    attempts: tuple[Attempt, ...]
    best: int
    plan: PruningPlan


def search(
    planner: LatencyPlanner,
    target: LatencyTarget,
    parent_ms: float,
    measure: Callable[[PruningPlan], tuple[float, float]],
) -> Search:
    """Plans for corrected budgets until one's model takes what the target says.

    The first budget is the target; a further one is interpolated between the nearest on either
    side, or scaled by what the last one missed by.

    Args:
        planner: makes a plan for a number of predicted milliseconds.
        target: what is wanted.
        parent_ms: measured milliseconds of the model as it is.
        measure: milliseconds of that model and of a plan's, measured in turns.

    Raises:
        PruningError: the fastest possible model is slower than the target; its time is named.
    """
    wanted = target.milliseconds(parent_ms)
    least = planner.least()
    planner.rescore(max(wanted, least))
    attempts: list[Attempt] = []
    plans: list[PruningPlan] = []
    budget: float | None = wanted
    while budget is not None and len(attempts) < MAX_TRIES:
        budget = max(budget, least)
        plan, predicted = planner.plan(budget)
        if any(plan.removed == earlier.removed for earlier in plans):
            break
        parent, result = measure(plan)
        attempts.append(Attempt(budget=budget, predicted=predicted, parent=parent, result=result))
        plans.append(plan)
        logger.info(
            f"try {len(attempts)}: {predicted:.2f} ms predicted, {result:.2f} of {parent:.2f} ms "
            f"measured ({result / parent:.3f})"
        )
        budget = _next_budget(attempts, target, planner.whole, least)
    best = min(range(len(attempts)), key=lambda n: abs(_miss(attempts[n], target)))
    nearest = attempts[best]
    if _miss(nearest, target) > LATENCY_TOLERANCE and any(a.budget <= least for a in attempts):
        raise PruningError(
            f"{target.text} cannot be reached with these floors, caps and alignment: the fastest "
            f"model takes {nearest.result:.2f} of {nearest.parent:.2f} ms "
            f"({nearest.result / nearest.parent:.3f}); ask for less or loosen min_channels, "
            "max_sparsity or round_to"
        )
    return Search(attempts=tuple(attempts), best=best, plan=plans[best])


def _miss(attempt: Attempt, target: LatencyTarget) -> float:
    """By how much an attempt is too slow, relative to the target; negative where too fast."""
    return attempt.result / target.milliseconds(attempt.parent) - 1


def _next_budget(
    attempts: Sequence[Attempt], target: LatencyTarget, whole: float, least: float
) -> float | None:
    """The budget to try, or None where the last attempt is close or nothing is left to try."""
    misses = {attempt.budget: _miss(attempt, target) for attempt in attempts}
    last = attempts[-1].budget
    if abs(misses[last]) <= STOP_TOLERANCE or (last <= least and misses[last] > 0):
        return None
    slow = [budget for budget, miss in misses.items() if miss > 0]
    fast = [budget for budget, miss in misses.items() if miss <= 0]
    if slow and fast:
        high, low = min(slow), max(fast)
        if high > low:
            part = -misses[low] / (misses[high] - misses[low])
            return low + part * (high - low)
    # Never back to the whole model, whatever noise says.
    return min(last / (1 + misses[last]), (last + whole) / 2)
