"""How much each slot matters: one non-negative number a slot, small means removable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.groups import Group, Member

Scorer = Callable[[nn.Module, Sequence[Group]], list[Tensor]]
Loss = Callable[[nn.Module, Any], Tensor]


def slot_sums(values_per_channel: Tensor, member: Member) -> Tensor:
    """Sum one value a channel of a layer into one value a slot of its group."""
    index = torch.from_numpy(member.index).to(values_per_channel.device)
    return values_per_channel[index].sum(dim=1)


def l1_scores(model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
    """L1 norm of each slot's filters, over the group's mean (Li et al. 2017, arXiv:1608.08710).

    The paper ranks within a layer; dividing by the mean makes layers comparable, since otherwise
    those with small weights, not those with removable channels, go first.
    """
    scores = []
    for group in groups:
        total = torch.zeros(group.size)
        for member in group.producers:
            weight = model.get_parameter(f"{member.name}.weight").detach().float().cpu()
            total += slot_sums(weight.abs().flatten(1).sum(dim=1), member)
        scores.append(total / total.mean().clamp(min=torch.finfo(total.dtype).tiny))
    return scores


@dataclass(frozen=True, kw_only=True)
class TaylorScorer:
    """Squared first-order change of the loss when a slot is silenced, averaged over batches.

    (Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with gates.) The gate sits where the slot is
    read: the change is the sum of weight · gradient over every weight that reads it, which is exact
    to first order for any activation and counts each reader of a residual stage once. Batch norm
    uses its running statistics, as the pruned model will.

    Attributes:
        batches: what `loss` takes, read once a scoring; small batches estimate better.
        loss: scalar loss of a model on one batch.
    """

    batches: Iterable[Any]
    loss: Loss

    def __call__(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """Scores a group, float32 on the CPU; the model is not touched.

        Raises:
            ValueError: there are no batches, or the loss is not finite on one of them.
        """
        twin = copy.deepcopy(model).float().eval().requires_grad_(False)
        readers = [[m for m in group.members if m.axis == "in"] for group in groups]
        weights = {
            member.name: twin.get_parameter(f"{member.name}.weight").requires_grad_(True)
            for members in readers
            for member in members
        }
        totals = [torch.zeros(group.size, dtype=torch.float64) for group in groups]
        count = 0
        for batch in self.batches:
            with torch.enable_grad():
                loss = self.loss(twin, batch)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} on batch {count}: no Taylor scores")
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            # One number an input channel: the loss's slope along that channel's gate.
            slopes = {
                name: torch.zeros(weight.shape[1])
                if gradient is None
                else (weight.detach() * gradient).transpose(0, 1).flatten(1).sum(dim=1).cpu()
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
            for total, members in zip(totals, readers, strict=True):
                total += sum(slot_sums(slopes[m.name], m) for m in members).double() ** 2  # type: ignore[union-attr]
            count += 1
        if not count:
            raise ValueError("the Taylor criterion needs at least one batch of real images")
        return [(total / count).float() for total in totals]
