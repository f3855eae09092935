"""What will be removed: the plan, before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolox.pruning.balance import bundles, with_partners
from yolox.pruning.config import PruneConfig, PruningError
from yolox.pruning.groups import Group
from yolox.pruning.select import matching_groups
from yolox.utils.documents import json_text, read_json
from yolox.utils.files import write_text
from yolox.utils.schema import integer, listing, mapping, plain, record, require, shown, text

PLAN_FORMAT = "yolox-pruning-plan"
PLAN_VERSION = 1
_MAX_SLOTS = 1_000_000  # slots of a group


def _group(value: Any, where: str) -> Iterator[str]:
    slots = listing(integer(0, _MAX_SLOTS))
    check = record({"name": text(), "size": integer(1, _MAX_SLOTS), "remove": slots})
    problems = list(check(value, where))
    if not problems:
        where = f"{where}.remove"
        if len(set(value["remove"])) < len(value["remove"]):
            problems.append(f"{where}: a slot is named twice")
        if max(value["remove"], default=0) >= value["size"]:
            problems.append(f"{where}: expected slots below {value['size']}, the group's size")
    yield from problems


def _groups(value: Any, where: str) -> Iterator[str]:
    problems = list(listing(_group)(value, where))
    if not problems and len({group["name"] for group in value}) < len(value):
        problems.append(f"{where}: a group is named twice")
    yield from problems


_PLAN = record({"version": integer(1, PLAN_VERSION), "groups": _groups, "config": mapping(plain)})


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
            "version": PLAN_VERSION,
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
        version = values.get("version")
        if type(version) is int and version > PLAN_VERSION:
            raise PruningError(
                f"the pruning plan has version {shown(version)}, this program reads up to "
                f"{PLAN_VERSION}: update it"
            )
        require(values, _PLAN, "the pruning plan is incomplete or misshapen", PruningError)
        groups = values["groups"]
        return cls(
            removed={g["name"]: tuple(sorted(g["remove"])) for g in groups if g["remove"]},
            sizes={g["name"]: g["size"] for g in groups},
            config=_config_of(values["config"]),
        )

    def emptied(self) -> list[str]:
        """Groups that lose all their slots, which only branches of residual blocks may."""
        return [name for name, slots in self.removed.items() if len(slots) == self.sizes[name]]

    def without_layers(self, groups: Sequence[Group], patterns: Sequence[str]) -> PruningPlan:
        """The plan in which groups with a layer of such a name or pattern stay whole.

        Raises:
            PruningError: a pattern that matches no prunable convolution.
        """
        if not patterns:
            return self
        spared = {group.name for group in matching_groups(groups, patterns)}
        spared = with_partners(groups, spared)
        kept = {name: slots for name, slots in self.removed.items() if name not in spared}
        ignored = dict.fromkeys([*self.config.get("ignore", ()), *patterns])
        config = self.config | {"ignore": list(ignored)}
        return PruningPlan(removed=kept, sizes=self.sizes, config=config)

    def to_json(self) -> str:
        """The plan as a file holds it."""
        return json_text(self.to_dict(), indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON. Raises `PruningError` where it cannot be written."""
        write_text(Path(path), self.to_json(), PruningError)

    @classmethod
    def load(cls, path: str | Path) -> PruningPlan:
        """Read a plan from JSON.

        Raises:
            PruningError: it cannot be read, or is no plan.
        """
        try:
            values = read_json(Path(path))
        except (OSError, ValueError) as error:
            raise PruningError(f"cannot read the pruning plan {path}: {error}") from error
        try:
            return cls.from_dict(values)
        except PruningError as error:
            raise PruningError(f"{path}: {error}") from error

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
            if slots and (min(slots) < 0 or max(slots) >= sizes[name]):
                raise PruningError(f"of {name} the plan names slots it does not have")
        empty = self.emptied()
        if empty and not self.config.get("allow_empty_blocks"):
            raise PruningError(
                f"the plan empties {', '.join(empty[:3])}: leave each layer one channel"
            )
        for numbers in bundles(groups):
            counts = {groups[n].name: len(self.removed.get(groups[n].name, ())) for n in numbers}
            if len(set(counts.values())) > 1:
                raise PruningError(
                    "these groups are parts of one tensor that is split evenly, so they have "
                    "to lose equally many channels: "
                    + ", ".join(f"{name} loses {count}" for name, count in counts.items())
                )
        if not any(self.removed.values()):
            raise PruningError("the plan removes nothing")


def _config_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """How a plan came about, as a file has it; a report says whether its target was met."""
    PruneConfig(target=values.get("target"))
    return dict(values)


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
    return PruningPlan(
        removed=removed, sizes={group.name: group.size for group in groups}, config=config.to_dict()
    )
