"""How much each slot matters: one non-negative number a slot, small means removable.

A criterion gives a number for each channel of each layer that makes the slot; the layers' numbers
are aggregated, and the group's scores normalised so that groups can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group, Member
from yolox.utils.model_utils import copy_model

Scorer = Callable[[nn.Module, Sequence[Group]], list[Tensor]]
Loss = Callable[[nn.Module, Any], Tensor]
# Values a channel: a filter bank (out, …) → (out,), or a batch norm's scales likewise.
ChannelValues = Callable[[Tensor], Tensor]


NO_BATCHES = "the criterion is measured on real images, and there are none: give the data set"


def require_finite(loss: Tensor, batch: int) -> None:
    """Raise `PruningError` where the loss on a batch is no number that scores can come from."""
    if not torch.isfinite(loss):
        raise PruningError(
            f"the loss of the model is {loss.item()} on calibration batch {batch}, so there are no "
            "scores: train the model on, or use a criterion of the weights alone, such as lamp"
        )


def slot_sums(values_per_channel: Tensor, member: Member) -> Tensor:
    """Sum one value a channel of a layer into one value a slot of its group."""
    index = torch.from_numpy(member.index).to(values_per_channel.device)
    return values_per_channel[index].sum(dim=1)


def l1_norms(weight: Tensor) -> Tensor:
    """Sum of the absolute weights of each filter (Li et al. 2017, arXiv:1608.08710)."""
    return weight.abs().flatten(1).sum(dim=1)


def l2_norms(weight: Tensor) -> Tensor:
    """Euclidean norm of each filter (Li et al. 2017, arXiv:1608.08710, section 3.1)."""
    return squared_norms(weight).sqrt()


def squared_norms(weight: Tensor) -> Tensor:
    """Sum of the squared weights of each filter."""
    return weight.square().flatten(1).sum(dim=1)


def median_distances(weight: Tensor) -> Tensor:
    """Sum of each filter's distances to all others of its layer (FPGM, He et al. 2019).

    arXiv:1811.00250: a filter near the geometric median of its layer can be replaced by the
    others.
    """
    filters = weight.flatten(1)
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


def lamp_scores(squares: Tensor) -> Tensor:
    """Squares (slots,) over the sum of those that are no smaller (LAMP, Lee et al. 2021).

    arXiv:2010.07611, with a slot's squared norm in the place of a squared weight. The
    largest slot of every group scores 1, so no group is emptied before the others.
    """
    ordered, order = squares.double().sort(stable=True)
    rest = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(ordered)
    scores[order] = ordered / rest.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.float()


def aggregate(parts: Sequence[Tensor], how: str) -> Tensor:
    """One score a slot from the scores (slots,) of the layers that make it."""
    stacked = torch.stack(list(parts))
    if how == "max":
        return stacked.amax(dim=0)
    return stacked.mean(dim=0) if how == "mean" else stacked.sum(dim=0)


def normalize(scores: Tensor, how: str) -> Tensor:
    """A group's scores over their mean or maximum, so that groups compare by rank, not by size."""
    if how == "none":
        return scores
    scale = scores.mean() if how == "mean" else scores.max()
    return scores / scale.clamp(min=torch.finfo(scores.dtype).tiny)


@dataclass(frozen=True, kw_only=True)
class WeightScorer:
    """Scores from weights alone: no data needed.

    Attributes:
        values: of a filter bank or, for batch norms, of a vector of scales.
        aggregate, normalize: see `PruneConfig`.
        batch_norms: take the batch norms on the slot instead of the convolutions that make it.
        finish: what becomes of the aggregated scores before they are normalised.
    """

    values: ChannelValues
    aggregate: str = "sum"
    normalize: str = "mean"
    batch_norms: bool = False
    finish: ChannelValues | None = None

    def __call__(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """Scores a group, float32 on the CPU.

        Raises:
            PruningError: batch norms are asked for, and there is none on some group's slots.
        """
        modules = dict(model.named_modules())
        scores = []
        for group in groups:
            members = list(group.producers)
            if self.batch_norms:
                members = [
                    m
                    for m in group.members
                    if isinstance(modules[m.name], _BatchNorm)
                    and modules[m.name].weight is not None
                ]
            if not members:
                raise PruningError(
                    f"importance bn needs a batch norm on every pruned channel: {group.name} has "
                    "none; choose another criterion or `ignore` that layer"
                )
            parts = []
            for member in members:
                weight = model.get_parameter(f"{member.name}.weight").detach().float().cpu()
                parts.append(slot_sums(self.values(weight), member))
            total = aggregate(parts, self.aggregate)
            scores.append(normalize(self.finish(total) if self.finish else total, self.normalize))
        return scores


@dataclass(frozen=True, kw_only=True)
class RandomScorer:
    """Uniform random scores in [0, 1): the control that every criterion has to beat."""

    seed: int = 0

    def __call__(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """Scores a group."""
        generator = torch.Generator().manual_seed(self.seed)
        return [torch.rand(group.size, generator=generator) for group in groups]


@dataclass(frozen=True, kw_only=True)
class TaylorScorer:
    """Squared first-order change of the loss when a slot is silenced, averaged over batches.

    (Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with gates.) The gate sits where the slot is
    read: the change is the sum of weight · gradient over every weight that reads it, which is exact
    to first order for any activation and counts each reader of a residual stage once. Batch norm
    uses its running statistics, as the pruned model will.

    With batches of one image this is the empirical Fisher information of the slot's mask (Group
    Fisher, Liu et al. 2021, arXiv:2108.00708), which that paper divides by the activation
    memory that the slot's removal saves: `PruneConfig.per` ``memory``.

    Attributes:
        batches: what `loss` takes, read once a scoring; small batches estimate better.
        loss: scalar loss of a model on one batch.
        aggregate: ``sum`` adds the readers' slopes and squares (one gate for all of them);
            ``mean`` and ``max`` are taken over each reader's own squared slope.
        normalize: see `PruneConfig`.
        device: where a copy of the model is for it; None means where the model is. Batches are
            taken as they come.
    """

    batches: Iterable[Any]
    loss: Loss
    aggregate: str = "sum"
    normalize: str = "none"
    device: torch.device | None = None

    def __call__(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """Scores a group, float32 on the CPU; the model is not touched.

        Raises:
            PruningError: there are no batches, or the loss is not finite on one of them.
        """
        twin = copy_model(model).to(self.device).float().eval().requires_grad_(False)
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
            require_finite(loss, count)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            # One number an input channel: the loss's slope along that channel's gate.
            slopes = {
                name: torch.zeros(weight.shape[1])
                if gradient is None
                else (weight.detach() * gradient).transpose(0, 1).flatten(1).sum(dim=1).cpu()
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            }
            for total, members in zip(totals, readers, strict=True):
                if members:
                    total += self._squared([slot_sums(slopes[m.name], m) for m in members])
            count += 1
        if not count:
            raise PruningError(NO_BATCHES)
        return [normalize((total / count).float(), self.normalize) for total in totals]

    def _squared(self, parts: Sequence[Tensor]) -> Tensor:
        wide = [part.double() for part in parts]
        if self.aggregate == "sum":
            return aggregate(wide, "sum").square()
        return aggregate([part.square() for part in wide], self.aggregate)
