"""From scores to a plan: how many slots each group loses, and which."""

from __future__ import annotations

import difflib
import fnmatch
import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from yolox.pruning.cost import CostModel, LayerCost, channel_costs
from yolox.pruning.groups import Group
from yolox.utils.errors import UserError

PLAN_FORMAT = "yolox-pruning-plan"
MODES = ("conv", "layer", "global")
IMPORTANCES = ("l1", "taylor")
TARGETS = ("params", "macs")


class PruningError(UserError):
    """A prune that cannot be done as asked, or that would do nothing."""


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """What to prune, by how much, on what grounds.

    Attributes:
        mode: ``conv`` (the named convolutions), ``layer`` (all whose names match a pattern), each
            by the ratio; or ``global`` (one ranking over the whole model).
        ch_sparsity: fraction of the chosen convolutions' output channels to remove, in (0, 1).
        target: instead of a ratio, what shall remain: ``params=0.5`` or ``macs=0.5``, in (0, 1).
        layers: names or patterns (``*`` and ``?``) for ``conv`` and ``layer``.
        importance: criterion, ``l1`` or ``taylor``.
        steps: rounds of scoring; each removes its part, silences it, and scores again.
        round_to: channels left in a pruned group are a multiple of it; a smaller group stays whole.
        min_channels: no group is left with fewer channels.
        max_sparsity: no group loses a larger fraction.
    """

    mode: str = "global"
    ch_sparsity: float = 0.4
    target: str | None = None
    layers: tuple[str, ...] = ()
    importance: str = "taylor"
    steps: int = 1
    round_to: int = 1
    min_channels: int = 1
    max_sparsity: float = 0.9

    def __post_init__(self) -> None:
        problems = []
        if self.mode not in MODES:
            problems.append(f"mode must be one of {', '.join(MODES)}: {self.mode!r}")
        if not 0 < self.ch_sparsity < 1:
            problems.append(f"ch_sparsity must be between 0 and 1, exclusive: {self.ch_sparsity}")
        if not 0 < self.max_sparsity < 1:
            problems.append(f"max_sparsity must be between 0 and 1, exclusive: {self.max_sparsity}")
        if self.importance not in IMPORTANCES:
            problems.append(
                f"importance must be one of {', '.join(IMPORTANCES)}: {self.importance!r}"
            )
        for name in ("steps", "round_to", "min_channels"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1: {getattr(self, name)}")
        if self.mode != "global" and not self.layers:
            problems.append(f"mode {self.mode} needs layers: names from --mode list")
        if self.target is not None:
            if self.mode != "global":
                problems.append(f"target goes with mode global, not {self.mode}")
            if not _readable_target(self.target):
                problems.append(
                    f"target must be {' or '.join(f'{t}=FRACTION' for t in TARGETS)} with a "
                    f"fraction between 0 and 1, exclusive: {self.target!r}"
                )
        if self.mode == "global" and self.layers:
            problems.append("mode global takes no layers: use mode layer for some of them")
        if problems:
            raise PruningError("pruning: " + "; ".join(problems))

    def target_fraction(self) -> float:
        """The fraction of the target's kind that shall remain."""
        assert self.target is not None
        return float(self.target.partition("=")[2])

    def target_kind(self) -> str | None:
        """``params`` or ``macs``, or None for a ratio of channels."""
        return self.target.partition("=")[0] if self.target else None

    def budget(self) -> str:
        """The budget as a person wrote it."""
        return f"target {self.target}" if self.target else f"ch_sparsity {self.ch_sparsity}"


def _readable_target(target: str) -> bool:
    kind, _, fraction = target.partition("=")
    try:
        return kind in TARGETS and 0 < float(fraction) < 1
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """Which slots go, by group name; JSON on disk.

    Attributes:
        removed: sorted slot numbers a group; groups that stay whole are not named.
        sizes: slots of every group of the model, to tell another model's plan.
        config: how the plan came about.
    """

    removed: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    config: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for the checkpoint's provenance."""
        return {
            "format": PLAN_FORMAT,
            "version": 1,
            "config": self.config,
            "groups": [
                {"name": name, "size": size, "remove": list(self.removed.get(name, ()))}
                for name, size in self.sizes.items()
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningPlan:
        """The inverse of `to_dict`.

        Raises:
            PruningError: not a plan.
        """
        if not isinstance(values, Mapping) or values.get("format") != PLAN_FORMAT:
            raise PruningError(f'not a pruning plan: expected "format": "{PLAN_FORMAT}"')
        try:
            return cls(
                removed={g["name"]: tuple(g["remove"]) for g in values["groups"] if g["remove"]},
                sizes={g["name"]: g["size"] for g in values["groups"]},
                config=dict(values["config"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PruningError(f"the pruning plan is incomplete or misshapen: {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> PruningPlan:
        """Read a plan from JSON."""
        try:
            values = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise PruningError(f"cannot read the pruning plan {path}: {error}") from error
        return cls.from_dict(values)

    def check(self, groups: Sequence[Group]) -> None:
        """Raise `PruningError` unless the plan was made for these groups and removes something."""
        sizes = {group.name: group.size for group in groups}
        odd = [
            name
            for name in sizes.keys() | self.sizes.keys()
            if sizes.get(name) != self.sizes.get(name)
        ]
        if odd:
            raise PruningError(
                f"the plan was made for another model: {len(odd)} groups differ, such as "
                + ", ".join(
                    f"{name} ({self.sizes.get(name)} in the plan, {sizes.get(name)} in the model)"
                    for name in sorted(odd)[:3]
                )
            )
        unknown = [name for name in self.removed if name not in sizes]
        if unknown:
            raise PruningError(
                f"the plan names groups that are not there: {', '.join(unknown[:3])}"
            )
        for name, slots in self.removed.items():
            if slots and (
                len(set(slots)) >= sizes[name] or min(slots) < 0 or max(slots) >= sizes[name]
            ):
                raise PruningError(f"the plan empties {name} or names slots it does not have")
        if not any(self.removed.values()):
            raise PruningError("the plan removes nothing")


def select_groups(groups: Sequence[Group], config: PruneConfig) -> list[Group]:
    """The groups that a config speaks of; a group shared by several named layers comes once.

    Raises:
        PruningError: a name or pattern that matches no prunable convolution (nearest names shown).
    """
    if config.mode == "global":
        return list(groups)
    names = [member.name for group in groups for member in group.producers]
    chosen: set[str] = set()
    for wanted in config.layers:
        matches = _matches(wanted, names, exact=config.mode == "conv")
        if not matches:
            near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.0)
            raise PruningError(
                f"--layers {wanted!r} matches no prunable convolution; nearest: {', '.join(near)} "
                "(--mode list shows them all)"
            )
        chosen.update(matches)
    return [group for group in groups if any(m.name in chosen for m in group.producers)]


def _matches(wanted: str, names: Sequence[str], *, exact: bool) -> list[str]:
    """Convolutions meant by a name: itself, or the unit it belongs to, or (not exact) a pattern."""
    own = [name for name in names if name in (wanted, f"{wanted}.conv")]
    if own or exact:
        return own
    return [
        name for name in names if fnmatch.fnmatchcase(name, wanted) or name.startswith(f"{wanted}.")
    ]


def allocate(
    groups: Sequence[Group],
    scores: Sequence[Tensor],
    config: PruneConfig,
    *,
    costs: Mapping[str, LayerCost] | None = None,
    progress: float = 1.0,
    gone: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Choose the slots to remove.

    Args:
        groups: the groups that may lose slots.
        scores: one tensor (slots,) a group.
        config: budget, scope, alignment, floor and cap.
        costs: what each layer of the model costs, for a target in params or MACs.
        progress: the part of the way to the budget to go, in (0, 1].
        gone: slots that earlier rounds removed; they stay removed.

    Returns:
        Sorted slots a group, groups that stay whole left out.

    Raises:
        PruningError: floors and caps do not allow the budget (nearest reachable named).
    """
    order = [
        _removal_order(g, s, (gone or {}).get(g.name, ()))
        for g, s in zip(groups, scores, strict=True)
    ]
    allowed = [_allowed_removals(group.size, config) for group in groups]
    if config.mode == "global":
        counts = _global_counts(groups, [v for _, v in order], allowed, config, costs, progress)
    else:
        ratio = config.ch_sparsity * progress
        _require_reachable(groups, allowed, config, ratio)
        counts = [
            min(removals, key=lambda r: (abs(r - ratio * group.size), -r))
            for group, removals in zip(groups, allowed, strict=True)
        ]
    return {
        group.name: tuple(sorted(slots.tolist()[:count]))
        for group, (slots, _), count in zip(groups, order, counts, strict=True)
        if count
    }


def _require_reachable(
    groups: Sequence[Group], allowed: Sequence[list[int]], config: PruneConfig, ratio: float
) -> None:
    """Refuse a ratio that the floors and caps, rather than alignment, keep the layers from."""
    per_slot = [group.channels_per_slot for group in groups]
    total = sum(group.size * n for group, n in zip(groups, per_slot, strict=True))
    most = sum(removals[-1] * n for removals, n in zip(allowed, per_slot, strict=True))
    if most + sum(per_slot) * config.round_to / 2 < ratio * total:
        raise PruningError(
            f"ch_sparsity {ratio:.3f} cannot be reached: at most {most / total:.3f} of it can go "
            "with these min_channels, max_sparsity and round_to; ask for less or loosen one of them"
        )


def _removal_order(group: Group, scores: Tensor, gone: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Slots from the first to go to the last, and their scores in that order."""
    ranked = scores.double().clone()
    ranked[list(gone)] = -math.inf
    values, slots = ranked.sort(stable=True)
    return slots, values


def _allowed_removals(size: int, config: PruneConfig) -> list[int]:
    """How many slots a group of this size may lose: 0, then every count that leaves it aligned."""
    floor = max(config.min_channels, math.ceil(round(size * (1 - config.max_sparsity), 9)), 1)
    kept = range(size - 1, floor - 1, -1)
    return [0, *(size - k for k in kept if k % config.round_to == 0)]


def _global_counts(
    groups: Sequence[Group],
    values: Sequence[Tensor],
    allowed: Sequence[list[int]],
    config: PruneConfig,
    costs: Mapping[str, LayerCost] | None,
    progress: float,
) -> list[int]:
    """Take blocks of slots from all groups, cheapest loss first, until the budget is met.

    For a ratio of channels a block's price is its mean score; for a target in params or MACs it is
    its score for what it saves at that moment. What a block saves only falls as others go, so a
    price that is still the lowest when it is worked out anew is the lowest of all.
    """
    by_saving = config.target is not None
    if by_saving and costs is None:
        raise PruningError(f"target {config.target} needs the costs of the layers")
    model = CostModel(groups, costs if by_saving and costs else channel_costs(groups))
    goal = 1 - config.target_fraction() if by_saving else config.ch_sparsity

    def price(number: int, step: int) -> float:
        start, end = allowed[number][step], allowed[number][step + 1]
        block = values[number][start:end]
        if not by_saving:
            return float(block.mean())
        return float(block.sum()) / max(model.saving(number, end - start), 1e-12)

    queue = [(price(n, 0), n, 0) for n, removals in enumerate(allowed) if len(removals) > 1]
    heapq.heapify(queue)
    counts = [0] * len(groups)
    saved = 0.0
    # What earlier rounds removed is priced −inf, and goes whatever the budget.
    while queue and (
        queue[0][0] == -math.inf or saved < goal * progress * model.total * (1 - 1e-9)
    ):
        _, number, step = heapq.heappop(queue)
        now = price(number, step)
        if queue and now > queue[0][0]:
            heapq.heappush(queue, (now, number, step))
            continue
        start, end = allowed[number][step], allowed[number][step + 1]
        saved += model.remove(number, end - start)
        counts[number] = end
        if step + 2 < len(allowed[number]):
            heapq.heappush(queue, (price(number, step + 1), number, step + 1))
    if saved < goal * progress * model.total * (1 - 1e-9):
        raise PruningError(
            f"{config.budget()} cannot be reached: at most {saved / model.total:.3f} of it can go "
            "with these min_channels, max_sparsity and round_to; ask for less or loosen one of them"
        )
    return counts


def make_plan(
    groups: Sequence[Group], removed: dict[str, tuple[int, ...]], config: PruneConfig
) -> PruningPlan:
    """A plan over all groups of the model from the removed slots.

    Raises:
        PruningError: nothing would be removed.
    """
    if not removed:
        smallest = min(group.size for group in groups)
        raise PruningError(
            f"nothing would be removed: {config.budget()} with round_to "
            f"{config.round_to} and min_channels {config.min_channels} (smallest group: {smallest} "
            "channels); raise the ratio or lower round_to"
        )
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    return PruningPlan(
        removed=removed, sizes={group.name: group.size for group in groups}, config=values
    )


def removed_fraction(groups: Sequence[Group], removed: Mapping[str, Sequence[int]]) -> float:
    """Fraction of the groups' output channels that goes."""
    gone = sum(len(removed.get(group.name, ())) * group.channels_per_slot for group in groups)
    return gone / sum(group.size * group.channels_per_slot for group in groups)
