"""Plan, cut, prove, count: the whole of pruning behind two functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from yolox.pruning.allocate import Costs, allocate
from yolox.pruning.blocks import empty_blocks, find_blocks, plan_of_rest
from yolox.pruning.compensate import absorb_constants
from yolox.pruning.config import PruneConfig, PruningError
from yolox.pruning.cost import mac_costs, memory_costs, param_costs
from yolox.pruning.groups import Group
from yolox.pruning.hint import ThresholdHint, threshold_hint
from yolox.pruning.importance import Loss, Scorer
from yolox.pruning.judge import Judgement, LabelledImages, keep_what_helps
from yolox.pruning.norms import settle_norms
from yolox.pruning.plan import PruningPlan, make_plan
from yolox.pruning.proof.apart import CutRefusedError
from yolox.pruning.proof.verify import find_culprits, verify_plan
from yolox.pruning.reconstruct import position_weights, refit
from yolox.pruning.report import PruneReport, report_change
from yolox.pruning.scorers import make_scorer
from yolox.pruning.select import select_groups
from yolox.pruning.surgery import apply_plan, mask_plan
from yolox.pruning.tracing.trace import trace_groups


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """The pruned model, in the mode of the original, with its plan and report.

    Attributes:
        model: the pruned model.
        plan: what was removed from it.
        report: the same in figures.
        judgement: which layers kept their refit, where images judged that.
    """

    model: nn.Module
    plan: PruningPlan
    report: PruneReport
    judgement: Judgement | None = None


def plan_pruning(
    model: nn.Module,
    groups: Sequence[Group],
    config: PruneConfig,
    *,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    count_input: Tensor | None = None,
    on_hint: Callable[[ThresholdHint], None] | None = None,
    scorer: Scorer | None = None,
) -> PruningPlan:
    """Decide which slots go; the model is not touched.

    Args:
        model: the model whose groups they are.
        groups: from `trace_groups`.
        config: what to prune, by how much, on what grounds.
        batches: re-iterable batches for a criterion that needs data.
        loss: scalar loss of the model on a batch, likewise.
        count_input: float (1, 3, H, W) at which MACs and activations are counted.
        on_hint: called with what a single threshold could do, before the first cut.
        scorer: in place of the criterion of `config`.

    Raises:
        PruningError: names that match nothing, a ratio out of reach, nothing to remove, no data.
    """
    scorer = make_scorer(config, batches, loss) if scorer is None else scorer
    chosen = select_groups(groups, config)
    costs = make_costs(model, config, count_input)
    emptiable = find_emptiable(model, chosen, config, count_input)
    removed: dict[str, tuple[int, ...]] = {}
    rounds = config.scorings
    for turn in range(1, rounds + 1):
        current = model
        if removed:
            current = mask_plan(model, groups, make_plan(groups, removed, config))
        scores = scorer(current, chosen)
        if turn == 1 and on_hint is not None:
            on_hint(threshold_hint(chosen, scores, config))
        removed = allocate(
            chosen,
            scores,
            config,
            costs=costs,
            progress=turn / rounds,
            gone=removed,
            emptiable=emptiable,
        )
    return make_plan(groups, removed, config)


def find_emptiable(
    model: nn.Module, groups: Sequence[Group], config: PruneConfig, example_input: Tensor | None
) -> frozenset[str]:
    """Names of the groups that may lose all their slots.

    Raises:
        PruningError: the config allows that, and there is no input to find them with.
    """
    if not config.allow_empty_blocks:
        return frozenset()
    if example_input is None:
        raise PruningError("allow_empty_blocks needs count_input, to run the blocks on")
    return frozenset(find_blocks(model, groups, example_input))


def make_costs(model: nn.Module, config: PruneConfig, count_input: Tensor | None) -> Costs:
    """The costs that a config's target and prices are in.

    Raises:
        PruningError: they are counted at an input, and there is none.
    """
    kind = config.target_kind()
    if kind == "latency":
        raise PruningError(
            f"target {config.target} has to be measured in a runtime: see "
            "yolox.jobs.prune_latency.plan_for_latency"
        )
    if count_input is None and (kind == "macs" or config.per == "memory"):
        what = "a target in MACs" if kind == "macs" else "a price in memory"
        raise PruningError(f"{what} needs count_input, the input that it is counted at")
    budget = None
    if kind == "params":
        budget = param_costs(model)
    elif kind == "macs" and count_input is not None:
        budget = mac_costs(model, count_input)
    price = None
    if config.per == "memory" and count_input is not None:
        price = memory_costs(model, count_input)
    return Costs(budget=budget, price=price)


def prune_model(
    model: nn.Module,
    example_input: Tensor,
    config: PruneConfig,
    *,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    images: Tensor | None = None,
    labelled: LabelledImages | None = None,
    count_input: Tensor | None = None,
    plan: PruningPlan | None = None,
    groups: Sequence[Group] | None = None,
    on_hint: Callable[[ThresholdHint], None] | None = None,
) -> PruneResult:
    """Trace, plan, compensate, cut, verify and count; the argument is not touched.

    Args:
        model: any module that torch-pruning can trace.
        example_input: float (1, 3, H, W), traced and verified with; random values prove more than
            constant ones, and a small image as much as a large one.
        config: what to prune, by how much, on what grounds.
        batches: for criteria that need data; see `plan_pruning`.
        loss: likewise.
        images: float (N, 3, H, W), real ones for `PruneConfig.reconstruct` and `bn_recalibrate`,
            on the device to do that on.
        labelled: see `compensate_cut`.
        count_input: the input that MACs are counted at, `example_input` by default.
        plan: carried out in place of one made here.
        groups: what `trace_groups` found in the model, where that is known.
        on_hint: see `plan_pruning`.

    Raises:
        PruningError: see `plan_pruning`; or the pruned model is not what the masked one is.
    """
    groups = trace_groups(model, example_input) if groups is None else groups
    count_input = example_input if count_input is None else count_input
    if plan is None:
        plan = plan_pruning(
            model,
            groups,
            config,
            batches=batches,
            loss=loss,
            count_input=count_input,
            on_hint=on_hint,
        )
    plan.check(groups)
    if not plan.emptied():
        ready, judgement = compensate_cut(
            model, groups, plan, config, example_input, images, labelled
        )
        result = apply_and_verify(ready, groups, plan, example_input, count_input)
        return replace(result, judgement=judgement)
    emptied, left, rest = empty_and_trace(model, groups, plan, example_input)
    pruned, difference, judgement = emptied, 0.0, None
    if rest.removed:
        ready, judgement = compensate_cut(
            emptied, left, rest, config, example_input, images, labelled
        )
        result = apply_and_verify(ready, left, rest, example_input, count_input)
        pruned, difference = result.model, result.report.difference
    report = report_change(model, pruned, count_input, difference)
    return PruneResult(model=pruned, plan=plan, report=report, judgement=judgement)


def empty_and_trace(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> tuple[nn.Module, list[Group], PruningPlan]:
    """The model without the branches that a plan empties, its groups, and the plan's rest for it.

    Raises:
        PruningError: see `empty_blocks`.
    """
    emptied = empty_blocks(model, groups, plan, example_input)
    left = trace_groups(emptied, example_input)
    return emptied, left, plan_of_rest(plan, groups, left)


def cut(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> nn.Module:
    """A plan carried out without compensation and without proof, as to measure its time."""
    if plan.emptied():
        model, groups, plan = empty_and_trace(model, groups, plan, example_input)
    return apply_plan(model, groups, plan) if plan.removed else model


def compensate_cut(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    config: PruneConfig,
    example_input: Tensor,
    images: Tensor | None = None,
    labelled: LabelledImages | None = None,
) -> tuple[nn.Module, Judgement | None]:
    """The model, of the same size, ready to lose the plan's channels.

    Args:
        model: the whole model.
        groups: all groups of it.
        plan: what it is to lose.
        config: what is done for accuracy after the cut.
        example_input: float (1, 3, H, W).
        images: see `prune_model`.
        labelled: the same images with their labels, which say what positions matter to the loss,
            and others, which say what layers are better refitted. Without them every position
            counts alike, and every refit stays.

    Returns:
        A copy of the model, and what became of the refit where that was judged.

    Raises:
        PruningError: the config wants calibration images, and there are none.
    """
    count = config.fitted_images
    if count and (images is None or not len(images)):
        raise PruningError(
            "reconstruct and bn_recalibrate need real images: give the data set, or set both to 0"
        )
    start = absorb_constants(model, groups, plan, example_input) if config.absorb else model
    if images is None or not count:
        return start, None
    weights = None
    if labelled and config.reconstruct:
        shown = labelled.fitted[: config.reconstruct]
        weights = position_weights(model, shown, labelled.loss, images.device)
    ready = refit(
        model,
        groups,
        plan,
        images[:count],
        start=start,
        reconstruct=config.reconstruct > 0,
        recalibrate=config.bn_recalibrate > 0,
        seed=config.seed,
        weights=weights,
        counts=(config.reconstruct or None, config.bn_recalibrate or None),
    )
    judgement = None
    if labelled and labelled.held:
        bare = mask_plan(start, groups, plan)
        ready, judgement = keep_what_helps(bare, ready, labelled, example_input, images.device)
    settle_norms(ready, model, mask_plan(ready, groups, plan), images[:count])
    return ready, judgement


def apply_and_verify(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    example_input: Tensor,
    count_input: Tensor | None = None,
) -> PruneResult:
    """Apply a plan to a compensated model, prove the result, and count it; as in `prune_model`."""
    pruned = apply_plan(model, groups, plan)
    try:
        difference = verify_plan(model, groups, plan, example_input, pruned=pruned)
    except CutRefusedError as error:
        culprits = find_culprits(model, groups, plan, example_input, error.probe)
        raise PruningError(
            f"{error}. Leave out what cannot be traced, with `ignore`: "
            f"{culprits or 'not one alone'}"
        ) from error
    report = report_change(
        model, pruned, example_input if count_input is None else count_input, difference
    )
    return PruneResult(model=pruned, plan=plan, report=report)
