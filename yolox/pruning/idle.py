"""Fields of a config that were given and do nothing there: each is told, with the cause."""

from __future__ import annotations

from collections.abc import Collection

from loguru import logger

from yolox.pruning.config import CRITERIA, PruneConfig

BUDGETS = ("ch_sparsity", "target", "layer_sparsity", "layers", "search")
CHOOSING = (
    "scope",
    "importance",
    "aggregate",
    "normalize",
    "per",
    "rounds",
    "round_to",
    "min_channels",
    "max_sparsity",
    "allow_empty_blocks",
)


def tell_idle_fields(config: PruneConfig, given: Collection[str], *, planned: bool) -> None:
    """Warn of the fields that were given and that nothing reads.

    Args:
        config: with them.
        given: names of the fields that a person set.
        planned: whether a plan says what goes.
    """
    criterion, name = CRITERIA[config.importance], f"importance {config.importance}"
    cases = [
        (planned, CHOOSING, "`plan` says what goes"),
        (not criterion.combines, ("aggregate", "normalize"), f"{name} combines no scores"),
        (criterion.looks_ahead, ("rounds",), f"{name} takes one round"),
        (not config.fitted_images, ("held_back",), "no layer is refitted"),
    ]
    told: set[str] = set()
    for idle, fields, cause in cases:
        if names := [field for field in fields if idle and field in given and field not in told]:
            told.update(names)
            logger.warning(f"without effect: {', '.join(f'`{n}`' for n in names)}, since {cause}")
