"""Proof after the cut: pruned is what the original is with those channels silenced.

Both run side by side in float64, layer by layer: what a layer of the pruned model puts out is held
against the same channels of the other one, and then both go on with the same values. Rounding so
never adds up, no exponential or saturation further on hides a difference, and what may follow a
layer can be chosen: its own output, or noise of any size. Equal steps make equal wholes. That is
done with the trained weights and with redrawn ones, in both modes, at two sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from yolox.pruning.balance import bundles
from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group
from yolox.pruning.plan import PruningPlan
from yolox.pruning.proof.apart import CutRefusedError, Probe, differs
from yolox.pruning.proof.twins import Twins
from yolox.pruning.surgery import apply_plan
from yolox.utils.threads import single_threaded

MAX_CULPRITS = 3

PROBES = (
    Probe(draw=0, training=True, noise=True, resized=True),
    Probe(draw=1, training=False, noise=False, batch=1, resized=True),
    Probe(draw=1, training=True, noise=True),
    Probe(draw=2, training=False, noise=True, resized=True),
)


def verify_plan(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    example_input: Tensor,
    *,
    pruned: nn.Module | None = None,
    probes: Sequence[Probe] = PROBES,
) -> float:
    """Check that a plan carried out equals the plan as a mask; nothing is touched.

    Args:
        model: the whole model, as it was before the cut.
        groups: all groups of the model.
        plan: that was carried out.
        example_input: float (1, 3, H, W).
        pruned: what is checked, `apply_plan` of the three by default.
        probes: settings of the weights that both models are compared with.

    Returns:
        The largest relative difference of an output channel on the example, with trained weights.

    Raises:
        CutRefusedError: the pruned model does not run, or computes something else: the graph holds
            an op whose channels were traced wrongly; or something that cannot be checked. The
            pruned model must not be used.
    """
    pruned = apply_plan(model, groups, plan) if pruned is None else pruned
    with _float64(), single_threaded(), torch.no_grad():
        twins = Twins(model, pruned, groups, plan, example_input)
        difference, allowed = twins.compare_outputs()
        for probe in probes:
            try:
                twins.compare_layers(probe)
            except CutRefusedError as error:
                error.probe = probe
                raise
        if difference > allowed:  # told after the layers, which can be named
            raise CutRefusedError(differs(difference, "its outputs on the example", allowed))
        if probes == PROBES:
            twins.check_all_used()
    return difference


def find_culprits(
    model: nn.Module,
    groups: Sequence[Group],
    plan: PruningPlan,
    example_input: Tensor,
    probe: Probe | None,
) -> str:
    """Which groups of a refused plan cannot be cut even alone, and the operations on their way."""
    named = []
    for numbers in bundles(groups):
        group = groups[numbers[0]]
        if group.name not in plan.removed:
            continue
        own = {groups[n].name: plan.removed[groups[n].name] for n in numbers}
        alone = PruningPlan(removed=own, sizes=plan.sizes, config=plan.config)
        try:
            probes = PROBES if probe is None else (probe,)
            verify_plan(model, groups, alone, example_input, probes=probes)
        except PruningError:
            layers = ", ".join(member.name for member in group.members)
            ops = ", ".join(group.ops) or "no tensor operation"
            named.append(f"{group.name} (with {layers}; through {ops})")
        if len(named) == MAX_CULPRITS:
            break
    return "; ".join(named)


@contextmanager
def _float64() -> Iterator[None]:
    """Tensors that a model makes as it runs are of float64 too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
