"""Scores that know what the channels that stay can take over: optimal brain surgeon, by structure.

Hassibi and Stork 1992 remove the weight whose removal costs least once all others have made up for
it; Frantar et al. 2022 (arXiv:2208.11580) do so for a layer's squared output error, and Kurtić et
al. 2023 (ZipLM, arXiv:2302.04089) for whole structures. Here a structure is a slot of a group, and
the error of each layer that reads it is weighed by what it means to the detector's loss.

Shapes: S sampled positions; I inputs, O outputs, K kernel area of a layer, P = I × K; n slots, m
columns of P that a slot stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.config import PruningError
from yolox.pruning.groups import Group, Member
from yolox.pruning.importance import NO_BATCHES, Loss, require_finite, slot_sums
from yolox.pruning.reconstruct import MAX_SAMPLES, RIDGE, draw, is_refittable, patches
from yolox.pruning.watch import fixed_layers
from yolox.utils.model_utils import copy_model

RISING = 1e-6  # relative step between scores of a group: they are sorted by again


@dataclass(kw_only=True)
class _Reader:
    """What a dense convolution reads, and what its outputs mean.

    Attributes:
        gram_PP: mean of the products of inputs under its kernel, at the positions that count.
        mean_P: mean of these inputs.
        count: positions so far.
        meaning_O: mean over images of the loss's squared slope at its outputs, over all positions.
    """

    gram_PP: Tensor
    mean_P: Tensor
    count: int
    meaning_O: Tensor


@dataclass(frozen=True, kw_only=True)
class SurgeonScorer:
    """What the loss rises by as each slot goes, the cheapest first, the others refitted each time.

    To second order, with the Fisher information for curvature; a layer's error at its outputs is
    that of the regression on the inputs that are left. Layers that cannot be refitted count with
    their squared slope, as in `TaylorScorer`.

    Attributes:
        batches: re-iterable batches that the loss takes.
        loss: a scalar of the model and a batch.
        seed: decides the sampled positions.
        device: to compute on; the CPU by default.
    """

    batches: Iterable[Any]
    loss: Loss
    seed: int = 0
    device: torch.device | None = None

    def __call__(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """Scores a group, float32 on the CPU, rising in the order in which slots go.

        Raises:
            PruningError: there are no batches, or the loss is not finite on one of them.
        """
        twin = copy_model(model).to(self.device).float().eval().requires_grad_(False)
        readers, slopes = self._observe(twin, groups)
        scores = []
        for group in groups:
            costs = torch.zeros(group.size, dtype=torch.float64)
            removals = []
            for member in group.members:
                if member.axis != "in":
                    continue
                if member.name in readers:
                    weight = twin.get_parameter(f"{member.name}.weight")
                    removals.append(_Removal(readers[member.name], weight, member))
                elif (member.name, group.name) in slopes:
                    costs += slopes[member.name, group.name]
            scores.append(_eliminate(removals, costs))
        return scores

    def _observe(
        self, twin: nn.Module, groups: Sequence[Group]
    ) -> tuple[dict[str, _Reader], dict[tuple[str, str], Tensor]]:
        members = [(g, m) for g in groups for m in g.members if m.axis == "in"]
        names = {member.name for _, member in members}
        fixed = fixed_layers(twin)
        refitted = {
            name: layer
            for name, layer in twin.named_modules()
            if name in names - fixed.keys()
            and isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and is_refittable(layer)
        }
        others = {
            name: twin.get_parameter(f"{name}.weight").requires_grad_(True)
            for name in sorted(names - refitted.keys())
        }
        inputs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in refitted}
        for name, layer in refitted.items():
            layer.weight.requires_grad_(True)  # so that its output has a gradient
            layer.register_forward_hook(
                lambda _m, args, out, name=name: inputs[name].append((args[0], out))
            )
        generator = torch.Generator().manual_seed(self.seed)
        readers: dict[str, _Reader] = {}
        slopes: dict[tuple[str, str], Tensor] = {}
        batches = list(self.batches)
        if not batches:
            raise PruningError(NO_BATCHES)
        for number, batch in enumerate(batches):
            for seen in inputs.values():
                seen.clear()
            with torch.enable_grad():
                loss = self.loss(twin, batch)
            require_finite(loss, number)
            once = {name: seen[0] for name, seen in inputs.items() if len(seen) == 1}
            # A layer that runs at several places has no one output to be fitted to.
            rest = others | {n: refitted[n].weight for n in refitted.keys() - once.keys()}
            outputs = {name: output for name, (_, output) in once.items()}
            found = _gradients(loss, {**outputs, **rest})
            with torch.no_grad():
                count = MAX_SAMPLES // len(batches)
                for name, (x, _) in once.items():
                    _add(readers, name, refitted[name], x, found[name], count, generator)
                for group, member in members:
                    if member.name not in rest:
                        continue
                    products = rest[member.name] * found[member.name]
                    values = products.transpose(0, 1).flatten(1).sum(dim=1).cpu()
                    part = slot_sums(values, member).double().square() / len(batches)
                    key = (member.name, group.name)
                    slopes[key] = slopes[key] + part if key in slopes else part
        for reader in readers.values():
            reader.meaning_O /= len(batches)
        return readers, slopes


def _gradients(loss: Tensor, tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The loss's slopes along tensors by name, 0 along those that it does not hang on."""
    found = torch.autograd.grad(
        loss, list(tensors.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(tensors, found, strict=True))


def _add(
    readers: dict[str, _Reader],
    name: str,
    layer: nn.Conv2d,
    x: Tensor,
    slope: Tensor,
    count: int,
    generator: torch.Generator,
) -> None:
    """Count a batch's inputs x (N, I, H, W) and slopes at its outputs (N, O, H', W') in."""
    squares = slope.square()
    positions = draw(slope.shape, squares.sum(dim=1).cpu(), count, generator, x.device)
    seen_SP = patches(layer, x, positions).flatten(1)
    if name not in readers:
        size = seen_SP.shape[1]
        readers[name] = _Reader(
            gram_PP=torch.zeros(size, size, dtype=torch.float64, device=x.device),
            mean_P=torch.zeros(size, dtype=torch.float64, device=x.device),
            count=0,
            meaning_O=torch.zeros(slope.shape[1], dtype=torch.float64, device=x.device),
        )
    reader = readers[name]
    reader.gram_PP += (seen_SP.mT @ seen_SP).double()
    reader.mean_P += seen_SP.sum(dim=0).double()
    reader.count += len(seen_SP)
    reader.meaning_O += squares.sum(dim=(0, 2, 3)).double()


class _Removal:
    """A layer's inputs, as slots of one group are taken out of them."""

    def __init__(self, reader: _Reader, weight: Tensor, member: Member) -> None:
        kernel = weight[0, 0].numel()
        index = torch.from_numpy(member.index)  # (n, repeat)
        taps = torch.arange(kernel)
        columns_nm = (index[:, :, None] * kernel + taps).flatten(1).to(weight.device)
        mean_P = reader.mean_P / reader.count
        # Its constant is free: a bias, or a batch norm's mean.
        gram_PP = reader.gram_PP / reader.count - torch.outer(mean_P, mean_P)
        ridge = RIDGE * gram_PP.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
        gram_PP.diagonal().add_(ridge)
        self._columns_nm = columns_nm
        self._inverse_PP = torch.linalg.inv(gram_PP)
        # Scaled by what an output means, its squared error is in units of the loss.
        rows = weight.detach().double().flatten(1)
        self._weight_OP = rows * reader.meaning_O.sqrt()[:, None]

    def costs(self, slots: Tensor) -> Tensor:
        """What the error rises by as each of the slots goes, alone and made up for (slots,)."""
        columns = self._columns_nm[slots]
        block = self._inverse_PP[columns[:, :, None], columns[:, None, :]]
        weight = self._weight_OP[:, columns].transpose(0, 1)  # (n, O, m)
        made_up = torch.linalg.solve(block, weight.mT).mT
        rises: Tensor = (weight * made_up).sum(dim=(1, 2))
        return rises.cpu()

    def remove(self, slot: int) -> None:
        """Take a slot out, and let the others make up for it."""
        columns = self._columns_nm[slot]
        block = self._inverse_PP[columns[:, None], columns[None, :]]
        across = torch.linalg.solve(block, self._inverse_PP[columns])
        self._weight_OP -= self._weight_OP[:, columns] @ across
        self._inverse_PP -= self._inverse_PP[:, columns] @ across


def _eliminate(removals: Sequence[_Removal], costs: Tensor) -> Tensor:
    """Scores (n,) that rise in the order in which slots go, the cheapest first."""
    left = torch.arange(len(costs))
    scores = torch.zeros(len(costs), dtype=torch.float64)
    last = torch.finfo(torch.float32).tiny
    while len(left):
        now = costs[left] + sum((removal.costs(left) for removal in removals), torch.tensor(0.0))
        at = int(now.argmin())
        slot = int(left[at])
        last = max(float(now[at]), last * (1 + RISING))
        scores[slot] = last
        left = torch.cat([left[:at], left[at + 1 :]])
        if len(left):
            for removal in removals:
                removal.remove(slot)
    return scores.float()
