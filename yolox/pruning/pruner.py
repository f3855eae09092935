"""Plan, cut, prove, count: the whole of pruning behind two functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from yolox.pruning.allocate import allocate, select_groups
from yolox.pruning.cost import LayerCost, layer_costs, weight_counts
from yolox.pruning.groups import Group, trace_groups
from yolox.pruning.importance import Loss, Scorer, TaylorScorer, l1_scores
from yolox.pruning.plan import PruneConfig, PruningError, PruningPlan, make_plan
from yolox.pruning.report import PruneReport, report_change
from yolox.pruning.surgery import apply_plan, mask_plan
from yolox.pruning.verify import verify_pruned
from yolox.utils.model_utils import count_macs


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """The pruned model, in the mode of the original, with its plan and report."""

    model: nn.Module
    plan: PruningPlan
    report: PruneReport


def make_scorer(
    importance: str, batches: Iterable[Any] | None = None, loss: Loss | None = None
) -> Scorer:
    """The scorer of a criterion.

    Raises:
        PruningError: the criterion needs batches and a loss, and they were not given.
    """
    if importance == "l1":
        return l1_scores
    if batches is None or loss is None:
        raise PruningError(
            f"importance {importance} needs real images and a loss: give the data set, or use l1"
        )
    return TaylorScorer(batches=batches, loss=loss)


def plan_pruning(
    model: nn.Module,
    groups: Sequence[Group],
    config: PruneConfig,
    *,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    count_input: Tensor | None = None,
) -> PruningPlan:
    """Decide which slots go; the model is not touched.

    Args:
        model: the model whose groups they are.
        groups: from `trace_groups`.
        config: what to prune, by how much, on what grounds.
        batches: re-iterable batches for a criterion that needs data.
        loss: scalar loss of the model on a batch, likewise.
        count_input: float (1, 3, H, W) at which MACs are counted, for a target in MACs.

    Raises:
        PruningError: names that match nothing, a ratio out of reach, nothing to remove, no data.
    """
    scorer = make_scorer(config.importance, batches, loss)
    chosen = select_groups(groups, config)
    costs = _costs(model, config, count_input)
    removed: dict[str, tuple[int, ...]] = {}
    for turn in range(1, config.rounds + 1):
        current = model
        if removed:
            current = mask_plan(model, groups, make_plan(groups, removed, config))
        removed = allocate(
            chosen,
            scorer(current, chosen),
            config,
            costs=costs,
            progress=turn / config.rounds,
            gone=removed,
        )
    return make_plan(groups, removed, config)


def _costs(
    model: nn.Module, config: PruneConfig, count_input: Tensor | None
) -> dict[str, LayerCost] | None:
    """The costs that the config's target is in; None for a ratio of channels."""
    if config.target_kind() == "params":
        return layer_costs(model, weight_counts(model))
    if config.target_kind() == "macs":
        if count_input is None:
            raise PruningError("a target in MACs needs count_input, the input they are counted at")
        return layer_costs(model, count_macs(model, count_input))
    return None


def prune_model(
    model: nn.Module,
    example_input: Tensor,
    config: PruneConfig,
    *,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    count_input: Tensor | None = None,
) -> PruneResult:
    """Trace, plan, cut, verify and count; the argument is not touched.

    Args:
        model: any module that torch-pruning can trace.
        example_input: float (1, 3, H, W), traced and verified with; random values prove more than
            constant ones, and a small image as much as a large one.
        config: what to prune, by how much, on what grounds.
        batches, loss: see `plan_pruning`.
        count_input: the input that MACs are counted at, `example_input` by default.

    Raises:
        PruningError: see `plan_pruning`; or the pruned model is not what the masked one is.
    """
    groups = trace_groups(model, example_input)
    count_input = example_input if count_input is None else count_input
    plan = plan_pruning(model, groups, config, batches=batches, loss=loss, count_input=count_input)
    return carry_out(model, groups, plan, example_input, count_input)


def carry_out(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    example_input: Tensor,
    count_input: Tensor | None = None,
) -> PruneResult:
    """Apply a plan, prove the result, and count it; arguments as in `prune_model`."""
    pruned = apply_plan(model, groups, plan)
    difference = verify_pruned(pruned, mask_plan(model, groups, plan), example_input)
    report = report_change(
        model, pruned, example_input if count_input is None else count_input, difference
    )
    return PruneResult(model=pruned, plan=plan, report=report)
