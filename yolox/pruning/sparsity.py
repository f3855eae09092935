"""Sparsity training: a penalty on the scales γ of batch norms, so that channels can be spared.

The loss gets s · Σ_i √n_i ‖γ_i‖₂ added, γ_i being the n_i scales of slot i. A slot is one channel
of one batch norm, which makes it s · Σ |γ| (network slimming, Liu et al. 2017, arXiv:1708.06519,
eq. 1), or all that must be pruned together, as in a residual stage (group lasso, Yuan & Lin 2006,
doi:10.1111/j.1467-9868.2005.00532.x; as there, √n_i makes one s fit slots of every size).

Shapes: C penalised channels over all batch norms; S slots; M channels of the largest slot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolox.pruning.groups import Group
from yolox.pruning.tracing.trace import trace_groups
from yolox.utils.choices import FORMS, SCHEDULES
from yolox.utils.device import float64_device
from yolox.utils.errors import UserError

MAX_STRENGTH = 1.0
RUINOUS_STRENGTH = (
    0.1  # strength beyond which the loss loses on most channels; see docs/sparsity.md
)
FAINT_SCALE, SMALL_SCALE = 0.01, 0.1  # |γ| that the log counts the channels below
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class SparsityConfig:
    """How batch norms are penalised.

    Attributes:
        strength: s of the penalty on γ, in (0, `MAX_STRENGTH`].
        form: ``l1`` (each γ by itself) or ``group`` (all γ of channels that are pruned together).
        schedule: s over the run: ``constant``; ``linear``, down to a tenth; or ``step``, a tenth
            after each of `drops`.
        drops: fractions of the run, rising, for ``step``.
        warmup: fraction of the run, in [0, 1), in which s rises from 0.
        shift: strength of the same penalty on the shifts β, in [0, `MAX_STRENGTH`]; 0 for none.
        proximal: move γ towards 0 after the optimizer's step and stop there, which leaves exact
            zeros, instead of by a subgradient, which leaves γ to swing around 0.

    Raises:
        UserError: listing every value that cannot work.
    """

    strength: float
    form: str = "l1"
    schedule: str = "constant"
    drops: tuple[float, ...] = (0.5, 0.75)
    warmup: float = 0.0
    shift: float = 0.0
    proximal: bool = True

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.strength <= MAX_STRENGTH:
            problems.append(
                f"strength must be above 0 and at most {MAX_STRENGTH:g}, usual are 1e-4 to 1e-2: "
                f"{self.strength}"
            )
        if not 0 <= self.shift <= MAX_STRENGTH:
            problems.append(f"shift must be in [0, {MAX_STRENGTH:g}]: {self.shift}")
        for name, allowed in (("form", FORMS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                problems.append(
                    f"{name} must be one of {', '.join(allowed)}: {getattr(self, name)!r}"
                )
        if not 0 <= self.warmup < 1:
            problems.append(f"warmup must be a fraction of the run in [0, 1): {self.warmup}")
        edges = (0.0, *self.drops, 1.0)
        if not all(a < b for a, b in itertools.pairwise(edges)):
            problems.append(f"drops must be rising fractions between 0 and 1: {self.drops}")
        if problems:
            raise UserError("sparsity: " + "; ".join(problems))

    def factor(self, progress: float) -> float:
        """What both strengths are multiplied by, in [0, 1].

        Args:
            progress: fraction of the run that is done, in [0, 1].
        """
        rise = min(1.0, progress / self.warmup) if self.warmup else 1.0
        if self.schedule == "linear":
            return rise * (1 - 0.9 * progress)
        if self.schedule == "step":
            return rise * 0.1 ** sum(progress >= drop for drop in self.drops)
        return rise


@dataclass(frozen=True, kw_only=True, eq=False)
class _Norm:
    """A batch norm by name, and its penalised channels, int64 on its device."""

    name: str
    layer: _BatchNorm
    channels: Tensor


class Sparsity:
    """The penalty on a model's batch norms, as the trainer applies it; see `make_sparsity`.

    It holds no state: all follows from γ and the run's progress, so that a resumed run goes on as
    it would have. Every process of a group does the same to the same γ.

    Attributes:
        config: what was asked for.
        slot_C: the slot of each penalised channel, int64 (C,); channels of several layers may share
            one.
    """

    def __init__(
        self, norms: Sequence[_Norm], slot_C: Tensor, config: SparsityConfig, momentum: float
    ) -> None:
        self.config = config
        self._norms = norms
        self._momentum = momentum
        self._sizes = [len(norm.channels) for norm in norms]
        device = norms[0].channels.device
        self._home = float64_device(device, "the penalty is computed")
        self.slot_C = slot_C.to(self._home)
        # Rows of channels, filled up with C, instead of a scatter-add: that sums in any order on
        # a GPU, and processes would drift apart.
        self._member_SM = _members(slot_C).to(self._home)
        self._weight_C = slot_C.bincount().double().sqrt()[slot_C].to(self._home)

    def scale_parameters(self) -> list[nn.Parameter]:
        """The γ of every batch norm that is penalised, at least in part."""
        return [norm.layer.weight for norm in self._norms]

    @property
    def layers(self) -> list[str]:
        """The names of those batch norms."""
        return [norm.name for norm in self._norms]

    @property
    def name(self) -> str:
        """The strength, as a person sets it."""
        return f"sparsity {self.config.strength:g}"

    @torch.no_grad()
    def add_gradients(self, progress: float) -> None:
        """Add the penalty's subgradient to the gradients; none where it is proximal.

        To be called once an optimizer step, on gradients that are summed over micro-batches and
        processes and free of a loss scale.

        Args:
            progress: fraction of the run that is done, in [0, 1].
        """
        if self.config.proximal:
            return
        for kind, strength in self._strengths(progress):
            values_C = self._read(kind)
            # At 0 the subgradient is 0; the least positive divisor gives that.
            slopes_C = strength * self._weight_C * values_C / self._norm(values_C)
            for parameter, channels, part in self._parts(kind, slopes_C):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.index_add_(0, channels, part)

    @torch.no_grad()
    def shrink(self, lr: float | Callable[[nn.Parameter], float], progress: float) -> None:
        """Where it is proximal: bring each slot's norm nearer to 0, but not beyond.

        By lr · s · √n / (1 − momentum): as far as SGD with that momentum carries a parameter under
        a lasting gradient of s · √n, without which s would balance a gradient of s · (1 − momentum)
        only. A γ that stays at 0 is one whose loss gradient is below s, with both ways of applying
        the penalty.

        Args:
            lr: learning rate of the step that was just made; a function of the parameter where an
                optimizer has several.
            progress: fraction of the run that is done, in [0, 1].
        """
        if not self.config.proximal:
            return
        for kind, strength in self._strengths(progress):
            values_C = self._read(kind)
            step = self._rate(kind, lr) * strength / (1 - self._momentum)
            keep_C = (1 - step * self._weight_C / self._norm(values_C)).clamp(min=0)
            for parameter, channels, part in self._parts(kind, values_C * keep_C):
                parameter[channels] = part

    @torch.no_grad()
    def settle(self, average: nn.Module) -> None:
        """Set to 0, in an average of the model, what is exactly 0 in the model.

        A moving average nears 0 for thousands of steps after γ has got there, and a checkpoint
        holds the average. What is left of such a γ is the past: the weights being trained have
        learnt to do without it. Other channels are not touched.

        Args:
            average: a module with the model's layers under the same names.
        """
        for kind in ("weight", "bias") if self.config.shift else ("weight",):
            for norm in self._norms:
                zero = norm.channels[getattr(norm.layer, kind)[norm.channels] == 0]
                average.get_parameter(f"{norm.name}.{kind}")[zero] = 0.0

    def scale(self) -> float:
        """The median |γ|."""
        return float(self._scales().median())

    def text(self) -> str:
        """A few words for a line of the log."""
        return f"γ < {FAINT_SCALE}: {100 * _share_below(self._scales(), FAINT_SCALE):.0f} %"

    def scalars(self) -> dict[str, float]:
        """Shares of small |γ| and quantiles of |γ|, by a name for a curve."""
        scales = self._scales()
        quantiles = torch.quantile(scales, torch.tensor(_QUANTILES, dtype=scales.dtype)).tolist()
        return {
            f"sparsity/below_{limit}": _share_below(scales, limit)
            for limit in (FAINT_SCALE, SMALL_SCALE)
        } | {
            f"sparsity/quantile_{100 * q:.0f}": value
            for q, value in zip(_QUANTILES, quantiles, strict=True)
        }

    def histograms(self) -> dict[str, Tensor]:
        """|γ| of all penalised channels and of each layer, on the CPU."""
        scales = self._scales()
        layers = zip(self._norms, torch.split(scales, self._sizes), strict=True)
        return {"gamma": scales} | {f"gamma/{norm.name}": part for norm, part in layers}

    def forecast(self, rates: Sequence[tuple[float, float]], steps: int) -> str:
        """Why the strength will not do for a run, or an empty text.

        A parameter under a lasting gradient s moves by Σ lr · s / (1 − momentum) at most. Where
        that is less than the median |γ|, half of the channels stay even if nothing holds them.

        Args:
            rates: (learning rate, progress) at steps spread evenly over the run.
            steps: how many optimizer steps it has.
        """
        if self.config.strength > RUINOUS_STRENGTH:
            return (
                f"{self.name} is above {RUINOUS_STRENGTH:g}: it outweighs the loss on most "
                "channels, and ruined the models that we tried it on; take a smaller one and more "
                "epochs"
            )
        mean = sum(lr * self.config.factor(progress) for lr, progress in rates) / len(rates)
        reach = steps * mean * self.config.strength / (1 - self._momentum)
        median = self.scale()
        if reach >= median:
            return ""
        # Not much more: at twice the median nearly all channels go, and AP with them.
        enough = 1.25 * self.config.strength * median / reach if reach else math.inf
        cure = "it takes more epochs or a higher learning rate"
        if enough <= RUINOUS_STRENGTH:
            cure = f"try {enough:.2g}, more epochs or a higher learning rate"
        return (
            f"{self.name} is weak for this run: it moves γ by {reach:.2g} at most in {steps} "
            f"steps, and the median of |γ| is {median:.2g}: {cure}"
        )

    def _strengths(self, progress: float) -> Iterator[tuple[str, float]]:
        factor = self.config.factor(progress)
        yield "weight", factor * self.config.strength
        if self.config.shift:
            yield "bias", factor * self.config.shift

    def _read(self, kind: str) -> Tensor:
        """γ or β of the penalised channels, float64 (C,): squares of small ones must not vanish."""
        parts = [getattr(norm.layer, kind)[norm.channels] for norm in self._norms]
        return torch.cat(parts).to(self._home).double()

    def _rate(self, kind: str, lr: float | Callable[[nn.Parameter], float]) -> float | Tensor:
        """The learning rate, of each channel (C,) where they differ."""
        if not callable(lr):
            return lr
        rates = [lr(getattr(norm.layer, kind)) for norm in self._norms]
        of_layer = self.slot_C.new_tensor(rates, dtype=torch.float64)
        sizes = self.slot_C.new_tensor(self._sizes)
        return of_layer.repeat_interleave(sizes, output_size=len(self.slot_C))

    def _norm(self, values_C: Tensor) -> Tensor:
        """Of each channel's slot, positive, (C,)."""
        padded = torch.cat((values_C, values_C.new_zeros(1)))
        norm_S = padded[self._member_SM].square().sum(dim=1).sqrt()
        return norm_S.clamp(min=torch.finfo(norm_S.dtype).tiny)[self.slot_C]

    def _parts(self, kind: str, values_C: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each layer's parameter that is trained, its penalised channels, and their values."""
        for norm, part in zip(self._norms, torch.split(values_C, self._sizes), strict=True):
            parameter = getattr(norm.layer, kind)
            if parameter.requires_grad:
                yield parameter, norm.channels, part.to(parameter)

    def _scales(self) -> Tensor:
        with torch.no_grad():
            return self._read("weight").abs().cpu()


def make_sparsity(
    model: nn.Module, config: SparsityConfig, example_input: Tensor, *, momentum: float
) -> Sparsity:
    """The penalty on every batch norm whose channels can be pruned, frozen ones left out.

    Args:
        model: on the device that it is trained on; not touched here.
        config: form, strength and schedule.
        example_input: float (1, 3, H, W), for tracing which channels are coupled.
        momentum: of the SGD that trains the model, in [0, 1).

    Raises:
        UserError: the model cannot be traced, or has no batch norm to penalise.
    """
    try:
        groups = trace_groups(model, example_input)
    except ValueError as error:
        raise UserError(f"sparsity: {error}") from error
    slots_of = _slots_by_norm(model, groups)
    if not slots_of:
        raise UserError(
            "sparsity needs a batch norm on channels that can be pruned, and the model has none: "
            "where it is fused for inference, train the checkpoint from before that; or set "
            "sparsity 0"
        )
    norms, slots = [], []
    for name, slot_of in slots_of.items():
        layer = cast(_BatchNorm, model.get_submodule(name))
        if not layer.weight.requires_grad:
            continue
        channels = (slot_of >= 0).nonzero().ravel()
        norms.append(_Norm(name=name, layer=layer, channels=channels.to(layer.weight.device)))
        slots.append(slot_of[channels])
    if not norms:
        raise UserError(
            f"sparsity needs batch norms that are trained: all {len(slots_of)} are frozen; let "
            "their weights require gradients, or set sparsity 0"
        )
    joint = torch.cat(slots)
    # Numbered anew: by channel, or without the slots that only frozen layers have.
    slot_C = torch.arange(len(joint))
    if config.form == "group":
        slot_C = torch.unique(joint, return_inverse=True)[1]
    return Sparsity(norms, slot_C, config, momentum)


def _slots_by_norm(model: nn.Module, groups: Sequence[Group]) -> dict[str, Tensor]:
    """Each batch norm's slots by channel, int64; −1 where a channel is never pruned."""
    slots_of: dict[str, Tensor] = {}
    first = 0
    for group in groups:
        for member in group.members:
            layer = model.get_submodule(member.name)
            if isinstance(layer, _BatchNorm) and isinstance(layer.weight, nn.Parameter):
                slots = slots_of.setdefault(member.name, torch.full((len(layer.weight),), -1))
                index = torch.from_numpy(member.index)
                slots[index] = torch.arange(first, first + group.size)[:, None].expand_as(index)
        first += group.size
    return slots_of


def _members(slot_C: Tensor) -> Tensor:
    """The channels of each slot, (S, M), filled up with C."""
    counts = slot_C.bincount()
    order = slot_C.argsort(stable=True)
    place = torch.arange(len(slot_C)) - (counts.cumsum(0) - counts)[slot_C[order]]
    table = torch.full((len(counts), int(counts.max())), len(slot_C))
    table[slot_C[order], place] = order
    return table


def _share_below(scales: Tensor, limit: float) -> float:
    return float((scales < limit).double().mean())
