"""Groups that have to lose equally many slots: planned as one, each with slots of its own.

The halves that a chunk cuts a tensor into are such groups. Their slots are paired by rank of
importance, the least important of each with one another, and not by where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

from yolox.pruning.groups import Group


def bundles(groups: Sequence[Group]) -> list[tuple[int, ...]]:
    """Numbers of the groups that go together, in order; most stand alone."""
    found: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        # A space is in no module's name.
        found.setdefault(group.balance or f" {group.name}", []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def merge_bundles(groups: Sequence[Group]) -> list[Group]:
    """One group in the place of those of each bundle, for what it costs, in the bundles' order."""
    return [_merge([groups[number] for number in numbers]) for numbers in bundles(groups)]


def _merge(parts: Sequence[Group]) -> Group:
    if len(parts) == 1:
        return parts[0]
    return Group(
        name=parts[0].name,
        size=parts[0].size,
        members=tuple(member for part in parts for member in part.members),
        kind=parts[0].kind,
        balance=parts[0].balance,
    )


def with_partners(groups: Sequence[Group], names: set[str]) -> set[str]:
    """Names of groups, and of all that have to lose as many slots as one of them."""
    shared = {group.balance for group in groups if group.name in names} - {""}
    return names | {group.name for group in groups if group.balance in shared}
