"""The scorer of a criterion, by its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from yolox.pruning.config import CRITERIA, PruneConfig, PruningError
from yolox.pruning.importance import (
    ChannelValues,
    Loss,
    RandomScorer,
    Scorer,
    TaylorScorer,
    WeightScorer,
    l1_norms,
    l2_norms,
    lamp_scores,
    median_distances,
    squared_norms,
)
from yolox.pruning.surgeon import SurgeonScorer
from yolox.utils.device import CPU, float64_device


def make_scorer(
    config: PruneConfig,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    *,
    device: torch.device | None = None,
) -> Scorer:
    """The scorer of a config's criterion; `TaylorScorer` says what the arguments are.

    Raises:
        PruningError: the criterion needs batches and a loss, and they were not given.
    """
    how, scale = str(config.aggregate), str(config.normalize)
    if CRITERIA[config.importance].needs_data:
        if batches is None or loss is None:
            raise PruningError(
                f"importance {config.importance} needs real images and a loss: give the data set, "
                "or use a criterion of the weights alone, such as lamp"
            )
        if config.importance == "obs":
            place = float64_device(device or CPU, "scores of obs are computed")
            return SurgeonScorer(batches=batches, loss=loss, seed=config.seed, device=place)
        return TaylorScorer(
            batches=batches, loss=loss, aggregate=how, normalize=scale, device=device
        )
    if config.importance == "random":
        return RandomScorer(seed=config.seed)
    # |γ| of the batch norms is network slimming's measure (Liu et al. 2017, arXiv:1708.06519).
    values: dict[str, ChannelValues] = {
        "l1": l1_norms,
        "l2": l2_norms,
        "fpgm": median_distances,
        "bn": torch.abs,
        "lamp": squared_norms,
    }
    return WeightScorer(
        values=values[config.importance],
        aggregate=how,
        normalize=scale,
        batch_norms=config.importance == "bn",
        finish=lamp_scores if config.importance == "lamp" else None,
    )
