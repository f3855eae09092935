"""What is asked for: which channels may go, on what grounds, how many, and what is mended after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yolox.utils.errors import UserError

MODES = ("conv", "layer", "global")
SCOPES = ("uniform", "global", "isomorphic")
AGGREGATES = ("sum", "mean", "max")
NORMALIZATIONS = ("none", "mean", "max")
PRICES = ("none", "cost", "memory")
TARGETS = ("params", "macs", "latency")
SMALL_SHARE = 1 / 3  # of the MACs; below it a channel's score is best held against what it costs


class PruningError(UserError):
    """A prune that cannot be done as asked, or that would do nothing."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What a criterion needs, and the choices that go with it.

    Attributes:
        needs_data: whether it is measured on images with the model's loss.
        combines: whether it aggregates and normalises scores of layers.
        aggregate, normalize, per: defaults of `PruneConfig`'s fields of that name; see
            benchmarks/log.md.
        looks_ahead: whether its scores are of channels that go one after the other already, so
            that scoring again after each part of the way adds nothing.
        per_of_small: default of ``per`` where less than a third of the MACs shall remain.
    """

    needs_data: bool = False
    combines: bool = True
    aggregate: str = "sum"
    normalize: str = "mean"
    per: str = "none"
    looks_ahead: bool = False
    per_of_small: str = ""


CRITERIA = {
    "taylor": Criterion(needs_data=True, normalize="none", per_of_small="cost"),
    "fisher": Criterion(needs_data=True, normalize="none", per="memory"),
    "obs": Criterion(needs_data=True, combines=False, normalize="none", looks_ahead=True),
    "lamp": Criterion(normalize="none"),
    "l1": Criterion(),
    "l2": Criterion(),
    # Sparsity training makes scales comparable over layers: none is to be held against its own.
    "bn": Criterion(aggregate="max", normalize="none"),
    "fpgm": Criterion(),
    "random": Criterion(combines=False, normalize="none"),
}


@dataclass(frozen=True, kw_only=True)
class LatencyTarget:
    """What a pruned model shall take: a fraction of its parent's time, or milliseconds.

    Attributes:
        text: as a person wrote it, ``latency=0.5`` or ``latency=12ms``.
        value: the number in it, above 0; a fraction is below 1.
        absolute: whether it is in milliseconds.
    """

    text: str
    value: float
    absolute: bool

    @classmethod
    def parse(cls, text: str) -> LatencyTarget | None:
        """The target of a text, None where it is not one."""
        kind, _, amount = text.partition("=")
        absolute = amount.endswith("ms")
        try:
            value = float(amount.removesuffix("ms"))
        except ValueError:
            return None
        if kind != "latency" or not 0 < value < (math.inf if absolute else 1):
            return None
        return cls(text=text, value=value, absolute=absolute)

    def milliseconds(self, parent: float) -> float:
        """What is wanted where the parent takes as many milliseconds."""
        return self.value if self.absolute else self.value * parent


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """What to prune, how much, by which criterion, and what is done for AP afterwards.

    Attributes:
        mode: ``conv`` (the named convolutions), ``layer`` (all whose names match a pattern) or
            ``global`` (the whole model).
        ch_sparsity: fraction of the chosen convolutions' output channels to remove, in (0, 1).
        target: what remains, instead of a ratio: ``params=0.5``, ``macs=0.5`` or
            ``latency=0.5``, in (0, 1), or ``latency=12ms``.
        layers: names or patterns (``*`` and ``?``) for ``conv`` and ``layer``.
        layer_sparsity: ratio in [0, 1) for each pattern; the last match counts. Other layers stay
            whole, unless they are coupled with one that matches.
        ignore: names or patterns of layers that stay whole.
        scope: how layers share the removal: ``uniform`` (each the same fraction), ``global`` (one
            ranking), ``isomorphic`` (one ranking among layers of like shape, the same fraction for
            each kind; Fang et al. 2024, arXiv:2407.04616). By default ``uniform`` for ``conv`` and
            ``layer`` with a ratio, else ``global``.
        importance: criterion, one of `CRITERIA`.
        aggregate: how the scores of a slot's layers become one: ``sum``, ``mean`` or ``max``.
        normalize: what the scores of a group are divided by: ``mean``, ``max`` or ``none``.
        per: what a score is divided by in the global ranking: ``cost`` (what the budget gains),
            ``memory`` (the activations that are saved) or ``none``. By default the criterion's;
            ``taylor`` takes ``cost`` where less than a third of the MACs shall remain.
        rounds: number of rounds of scoring; each silences the channels chosen so far. ``obs`` looks
            ahead itself and takes one.
        round_to: a pruned group keeps a multiple of this number of channels, because runtimes are
            slow with odd numbers; a smaller group stays whole.
        min_channels: smallest number of channels that a group keeps.
        max_sparsity: largest fraction of its channels that a group may lose.
        allow_empty_blocks: whether residual blocks may lose their whole branch, if it is the least
            important part left; `max_sparsity` and `min_channels` do not apply then, and the
            branch is replaced by a constant.
        absorb: whether the next layer takes over the constant output of a removed channel.
        reconstruct: number of images to refit the remaining weights on; 0 switches it off.
        bn_recalibrate: number of images to correct batch-norm statistics on; 0 switches it off.
        held_back: number of further images that decide which layers keep their refit, at most a
            third of all there are; 0 keeps every refit.
        search: number of moves of channels between layers at equal cost that are tried; those that
            lower the loss after refitting stay. 0 takes the plan of the scores.
        seed: seed of ``random`` and of the positions that refitting uses.
    """

    mode: str = "global"
    ch_sparsity: float = 0.4
    target: str | None = None
    layers: tuple[str, ...] = ()
    layer_sparsity: Mapping[str, float] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    scope: str | None = None
    importance: str = "taylor"
    aggregate: str | None = None
    normalize: str | None = None
    per: str | None = None
    rounds: int = 5
    round_to: int = 8
    min_channels: int = 1
    max_sparsity: float = 0.9
    allow_empty_blocks: bool = False
    absorb: bool = True
    reconstruct: int = 64
    bn_recalibrate: int = 0
    held_back: int = 32
    search: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if problems := [*self._range_problems(), *self._contradictions()]:
            raise PruningError("pruning: " + "; ".join(problems))
        criterion = CRITERIA[self.importance]
        # Written out, so that a saved config says what was done.
        scope = self._chosen_scope()
        for name, value in (
            ("scope", scope),
            ("aggregate", self.aggregate or criterion.aggregate),
            ("normalize", self.normalize or criterion.normalize),
            ("per", self.per or (self._price(criterion) if self._divides(scope) else "none")),
        ):
            object.__setattr__(self, name, value)

    def _divides(self, scope: str) -> bool:
        """Whether scores are divided by a price; the knapsack weighs them itself."""
        return scope == "global" and self.target_kind() != "latency"

    def _price(self, criterion: Criterion) -> str:
        small = self.target_kind() == "macs" and self.target_fraction() < SMALL_SHARE
        return (criterion.per_of_small if small else "") or criterion.per

    def _chosen_scope(self) -> str:
        by_ratio = bool(self.layer_sparsity) or (self.mode != "global" and self.target is None)
        return self.scope or ("uniform" if by_ratio else "global")

    def _range_problems(self) -> list[str]:
        problems = []
        for name, allowed in (
            ("mode", MODES),
            ("scope", (None, *SCOPES)),
            ("importance", tuple(CRITERIA)),
            ("aggregate", (None, *AGGREGATES)),
            ("normalize", (None, *NORMALIZATIONS)),
            ("per", (None, *PRICES)),
        ):
            if getattr(self, name) not in allowed:
                names = ", ".join(value for value in allowed if value)
                problems.append(f"{name} must be one of {names}: {getattr(self, name)!r}")
        for name in ("ch_sparsity", "max_sparsity"):
            if not 0 < getattr(self, name) < 1:
                problems.append(f"{name} must be between 0 and 1, exclusive: {getattr(self, name)}")
        for pattern, ratio in self.layer_sparsity.items():
            if not 0 <= ratio < 1:
                problems.append(
                    f"layer_sparsity must be from 0 to below 1: {ratio} for {pattern!r}"
                )
        for name, least in (
            ("rounds", 1),
            ("round_to", 1),
            ("min_channels", 1),
            ("reconstruct", 0),
            ("bn_recalibrate", 0),
            ("held_back", 0),
            ("search", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                problems.append(f"{name} must be at least {least}: {getattr(self, name)}")
        if self.target is not None and not _readable_target(self.target):
            problems.append(
                f"target must be {', '.join(f'{t}=FRACTION' for t in TARGETS)} with a fraction "
                f"between 0 and 1, exclusive, or latency=NUMBERms: {self.target!r}"
            )
        return problems

    def _contradictions(self) -> list[str]:
        problems = []
        if self.layer_sparsity:
            if self.target is not None or self.layers:
                problems.append("layer_sparsity says it all: it goes without target and layers")
            if self.scope not in (None, "uniform"):
                problems.append(f"layer_sparsity sets each layer's ratio: no scope {self.scope}")
        elif self.mode != "global" and not self.layers:
            problems.append(
                f"mode {self.mode} needs `layers`: names that `yolox.pruning.trace_groups` finds"
            )
        if self.mode == "global" and self.layers:
            problems.append("mode global takes no layers: use mode layer for some of them")
        scope = self._chosen_scope()
        if self.allow_empty_blocks and scope != "global":
            problems.append(f"allow_empty_blocks needs one ranking of all layers: no scope {scope}")
        if scope != "global" and self.per not in (None, "none"):
            problems.append(f"scope {scope} gives layers equal shares: no per {self.per}")
        if self.search and (self.fixed_ratios or self.allow_empty_blocks):
            problems.append("search shares one budget out among layers that all keep channels")
        if self.search and not (self.reconstruct and self.held_back):
            problems.append("search judges refitted plans: it needs reconstruct and held_back")
        if self.search and self.target_kind() == "latency":
            problems.append("search has no target in latency: give macs, params or ch_sparsity")
        if self.target_kind() == "latency":
            if scope != "global":
                problems.append(f"a target in latency ranks the whole model: no scope {scope}")
            if self.per not in (None, "none"):
                problems.append(
                    f"a target in latency weighs importance against milliseconds: no per {self.per}"
                )
        return problems

    @property
    def fixed_ratios(self) -> bool:
        """Whether every group has a ratio of its own to meet, rather than a common budget."""
        return bool(self.layer_sparsity) or (self.scope == "uniform" and self.target is None)

    @property
    def fitted_images(self) -> int:
        """How many images layers are refitted or corrected on, the most that one of them takes."""
        return max(self.reconstruct, self.bn_recalibrate)

    @property
    def scorings(self) -> int:
        """How many times slots are scored."""
        return 1 if CRITERIA[self.importance].looks_ahead else self.rounds

    def target_fraction(self) -> float:
        """The fraction of the target's kind that shall remain."""
        assert self.target is not None
        return float(self.target.partition("=")[2])

    def target_kind(self) -> str | None:
        """``params``, ``macs`` or ``latency``, or None for a ratio of channels."""
        return str(self.target).partition("=")[0] if self.target else None

    def latency_target(self) -> LatencyTarget:
        """The target of kind ``latency``."""
        target = LatencyTarget.parse(self.target or "")
        assert target is not None
        return target

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for the checkpoint's provenance."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return values | {"layer_sparsity": dict(self.layer_sparsity)}

    def budget(self) -> str:
        """The budget as a person wrote it."""
        if self.layer_sparsity:
            return "layer_sparsity " + " ".join(f"{k}={v}" for k, v in self.layer_sparsity.items())
        return f"target {self.target}" if self.target else f"ch_sparsity {self.ch_sparsity}"


def _readable_target(target: object) -> bool:
    text = str(target)  # a Python caller or a file may give a number
    kind, _, fraction = text.partition("=")
    if kind == "latency":
        return LatencyTarget.parse(text) is not None
    try:
        return kind in TARGETS and 0 < float(fraction) < 1 and math.isfinite(float(fraction))
    except ValueError:
        return False
