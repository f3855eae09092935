"""What is asked for, and what will be removed: config and plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
        rounds: how often to score; each removes its part, silences it, and scores again.
        round_to: channels left in a pruned group are a multiple of it; a smaller group stays whole.
        min_channels: no group is left with fewer channels.
        max_sparsity: no group loses a larger fraction.
    """

    mode: str = "global"
    ch_sparsity: float = 0.4
    target: str | None = None
    layers: tuple[str, ...] = ()
    importance: str = "taylor"
    rounds: int = 5
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
        for name in ("rounds", "round_to", "min_channels"):
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
