"""Which groups a config speaks of, by layer name and pattern."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from yolox.pruning.balance import with_partners
from yolox.pruning.config import PruneConfig, PruningError
from yolox.pruning.groups import Group


def select_groups(groups: Sequence[Group], config: PruneConfig) -> list[Group]:
    """The groups that may lose slots; a group shared by several named layers comes once.

    A group is ignored as a whole if one of its layers is. Groups that have to lose equally many
    slots are chosen and ignored together.

    Raises:
        PruningError: a name or pattern that matches no prunable convolution (nearest names
            shown), or nothing is left to prune.
    """
    names = [member.name for group in groups for member in group.producers]
    exact = config.mode == "conv"
    wanted = _all_matches("`layers`", config.layers, names, exact=exact)
    if config.layer_sparsity:
        wanted = _all_matches("`layer_sparsity`", tuple(config.layer_sparsity), names)
    ignored = {group.name for group in matching_groups(groups, config.ignore)}
    everything = config.mode == "global" and not config.layer_sparsity
    named = {g.name for g in groups if everything or wanted & {m.name for m in g.producers}}
    named = with_partners(groups, named) - with_partners(groups, ignored)
    chosen = [group for group in groups if group.name in named]
    if not chosen:
        raise PruningError("`ignore` leaves nothing to prune: every chosen layer matches it")
    return chosen


def matching_groups(groups: Sequence[Group], patterns: Sequence[str]) -> list[Group]:
    """Groups with a layer of such a name or pattern.

    Raises:
        PruningError: a pattern that matches no prunable convolution.
    """
    names = [member.name for group in groups for member in group.producers]
    ignored = _all_matches("`ignore`", patterns, names)
    return [group for group in groups if {member.name for member in group.producers} & ignored]


def group_ratios(groups: Sequence[Group], config: PruneConfig) -> list[float]:
    """The fraction that each group is to lose; layers that share one get the lowest of theirs."""
    if not config.layer_sparsity:
        return [config.ch_sparsity] * len(groups)
    ratios = []
    for group in groups:
        own = [
            ratio
            for member in group.producers
            for ratio in [
                ratio
                for pattern, ratio in config.layer_sparsity.items()
                if _matches(pattern, [member.name])
            ][-1:]
        ]
        ratios.append(min(own))
    return ratios


def _all_matches(
    argument: str, patterns: Sequence[str], names: Sequence[str], *, exact: bool = False
) -> set[str]:
    chosen: set[str] = set()
    for wanted in patterns:
        matches = _matches(wanted, names, exact=exact)
        if not matches:
            near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.0)
            raise PruningError(
                f"{argument} {wanted!r} matches no prunable convolution; nearest: {', '.join(near)}"
                " (`yolox.pruning.trace_groups` finds them)"
            )
        chosen.update(matches)
    return chosen


def _matches(wanted: str, names: Sequence[str], *, exact: bool = False) -> list[str]:
    """Convolutions meant by a name: itself, or the unit it belongs to, or (not exact) a pattern."""
    own = [name for name in names if name in (wanted, f"{wanted}.conv")]
    if own or exact:
        return own
    return [
        name for name in names if fnmatch.fnmatchcase(name, wanted) or name.startswith(f"{wanted}.")
    ]
