"""Proof after the cut: pruned is what the original is with those channels silenced."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.surgery import apply_plan, mask_plan

MAX_CULPRITS = 3
TOLERANCE = 1e-9  # relative, in float64: only the order of summation may differ
# Where a model magnifies rounding itself: so many times what the last bit of its weights does, and
# never more than this. A wrong cut is apart in the first digits.
NOISE_FACTOR = 10
WORST_TOLERANCE = 1e-6


@torch.no_grad()
def _compare(pruned: nn.Module, masked: nn.Module, example_input: Tensor) -> tuple[float, float]:
    """Largest output difference over the largest output, in float64, and what is allowed of it.

    Taken twice, the second time with each batch norm on the statistics of the input: in a model
    that is not trained the signal dies out layer by layer, and any two would look the same.
    """
    x = example_input.detach().cpu().double()
    twins = [copy.deepcopy(model).cpu().double().eval() for model in (pruned, masked)]
    worst = _difference(twins, x)
    if worst > TOLERANCE:
        return worst, TOLERANCE
    for module in itertools.chain(*(twin.modules() for twin in twins)):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    try:
        worst = max(worst, _difference(twins, x))
    except ValueError:  # a map of one value has no statistics
        return worst, TOLERANCE
    if worst <= TOLERANCE:
        return worst, TOLERANCE
    # Statistics of a map of few values divide by next to nothing, in layer after layer: rounding
    # alone, in either model, may then show. What it can do is measured on the masked one.
    noise = _difference((_nudged(twins[1]), twins[1]), x)
    return worst, min(max(TOLERANCE, NOISE_FACTOR * noise), WORST_TOLERANCE)


def _nudged(model: nn.Module) -> nn.Module:
    """A copy of a float64 model, each parameter one rounding up or down, always the same way."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        sign = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1
        parameter.mul_(1 + sign.double() * torch.finfo(torch.float64).eps)
    return other


def _difference(twins: Sequence[nn.Module], x: Tensor) -> float:
    outputs = [_flatten(twin(x)) for twin in twins]
    worst = 0.0
    for small, reference in zip(*outputs, strict=True):
        if small.shape != reference.shape:
            raise PruningError(
                f"output shapes differ: {tuple(small.shape)}, expected {tuple(reference.shape)}"
            )
        scale = reference.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        worst = max(worst, float(((small - reference).abs().max() / scale).nan_to_num(torch.inf)))
    return worst


def verify_pruned(pruned: nn.Module, masked: nn.Module, example_input: Tensor) -> float:
    """Check that a pruned model equals the masked one on an input.

    Returns:
        The largest relative difference found.

    Raises:
        PruningError: the pruned model does not run, or computes something else: the graph holds an
            op whose channels were traced wrongly, and the pruned model must not be used.
    """
    try:
        difference, allowed = _compare(pruned, masked, example_input)
    except RuntimeError as error:
        raise PruningError(
            f"the pruned model does not run, so the cut is refused: {error}"
        ) from error
    if difference > allowed:
        raise PruningError(
            f"the pruned model differs from the masked one by {difference:.1e} (relative; at most "
            f"{allowed:.0e} is summation order), so the cut is refused"
        )
    return difference


def find_culprits(
    model: nn.Module, groups: Sequence[Group], plan: PruningPlan, example_input: Tensor
) -> str:
    """Which groups of a refused plan cannot be cut even alone, and the operations on their way."""
    named = []
    for group in groups:
        if group.name not in plan.removed:
            continue
        alone = PruningPlan(
            removed={group.name: plan.removed[group.name]}, sizes=plan.sizes, config=plan.config
        )
        try:
            verify_pruned(
                apply_plan(model, groups, alone), mask_plan(model, groups, alone), example_input
            )
        except PruningError:
            layers = ", ".join(member.name for member in group.members)
            ops = ", ".join(group.ops) or "no tensor operation"
            named.append(f"{group.name} (with {layers}; through {ops})")
        if len(named) == MAX_CULPRITS:
            break
    return "; ".join(named)


def _flatten(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in _flatten(value)]
