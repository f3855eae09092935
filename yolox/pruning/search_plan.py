"""The plan of a search: from the starts to the slots that go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from yolox.pruning.allocate import allocate
from yolox.pruning.config import PruneConfig, PruningError
from yolox.pruning.cost import LayerSum, channel_costs, mac_costs, param_costs
from yolox.pruning.groups import Group
from yolox.pruning.judge import LabelledImages
from yolox.pruning.lookahead import Lookahead
from yolox.pruning.plan import PruningPlan, make_plan
from yolox.pruning.pruner import make_costs
from yolox.pruning.search import Progress, Shares, Space, search
from yolox.pruning.select import select_groups
from yolox.pruning.surgeon import SurgeonScorer

ROUNDING = 1e-9  # relative, of a budget


class PlanSearch:
    """Plans for a budget in MACs, parameters or channels, each judged by its refitted model.

    Which slots of a group go first is what `SurgeonScorer` says; how many, the search.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        config: PruneConfig,
        ranked: PruningPlan,
        batches: Iterable[Any],
        images: Tensor,
        labelled: LabelledImages,
        count_input: Tensor,
    ) -> None:
        """Score the slots, and run the whole model.

        Args:
            model: the model; not changed.
            groups: all groups of it.
            config: what to prune, and by how much.
            ranked: the plan of the config's ranking, to start from.
            batches: what the loss takes, to score slots on.
            images: float (N, 3, H, W) that each plan is refitted on, on the device to compute on.
            labelled: the same with their labels, and others that plans are judged on.
            count_input: float (1, 3, H, W) that MACs are counted at.
        """
        chosen = select_groups(groups, config)
        scorer = SurgeonScorer(
            batches=batches, loss=labelled.loss, seed=config.seed, device=images.device
        )
        scores = scorer(model, chosen)
        self._groups, self._config = groups, config
        kind = config.target_kind()
        if kind == "macs":
            base = mac_costs(model, count_input)
        else:
            base = param_costs(model) if kind == "params" else channel_costs(chosen)
        total = LayerSum(chosen, base).at([group.size for group in chosen])
        left = config.target_fraction() if kind else 1 - config.ch_sparsity
        self._space = Space(
            chosen,
            scores,
            config,
            lambda merged: LayerSum(merged, base),
            left * total * (1 + ROUNDING),
        )
        plans = {"the ranking": ranked.removed}
        for name, scope in (("a ranking by what others replace", "global"), ("equal", "uniform")):
            # One allocation each: nothing is searched for in it.
            trial = replace(config, scope=scope, per=None, rounds=1, search=0)
            try:
                costs = make_costs(model, trial, count_input)
                plans[name] = allocate(chosen, scores, trial, costs=costs)
            except PruningError:  # as equal shares may be out of reach
                continue
        shares = {name: self._space.shares(removed) for name, removed in plans.items()}
        fitting = {name: self._space.fitted(each) for name, each in shares.items()}
        self._starts = {name: each for name, each in fitting.items() if each is not None}
        self._ahead = Lookahead(model, groups, images, labelled, seed=config.seed)

    def run(self, moves: int, progress: Progress | None = None) -> Iterator[Progress]:
        """See `search`."""
        return search(
            self._space, self._starts, self, moves, seed=self._config.seed, progress=progress
        )

    def plan(self, shares: Shares) -> PruningPlan:
        """The plan of shares."""
        return make_plan(self._groups, self._space.removed(shares), self._config)

    def loss(self, shares: Shares) -> float:
        """See `Objective`."""
        return self._ahead.loss(self.plan(shares))

    def keep(self) -> None:
        """See `Objective`."""
        self._ahead.keep()
