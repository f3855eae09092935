"""What a run needs to go on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from yolox.utils.checkpoint import CheckpointError
from yolox.utils.ema import ModelEMA


def capture_state(
    *,
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ModelEMA | None,
    epoch: int,
    best: tuple[float, float],
    objective: nn.Module | None = None,
) -> dict[str, Any]:
    """The ``train`` entry of a checkpoint, taken between two epochs.

    Args:
        epoch: number of epochs done.
        best: AP50-95 and AP50 of the best evaluation so far.
        objective: what computes the losses, if not the model; see `Trainer`.
    """
    beside = {name: value.detach().cpu() for name, value in _beside(objective, model).items()}
    return {
        "epoch": epoch,
        "best": list(best),
        # The file's "model" is the average; the weights being trained are others.
        "raw_model": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "ema_updates": ema.updates if ema else 0,
        "optimizer": optimizer.state_dict(),
        "precision": fabric._precision.state_dict(),
        "torch_rng": torch.get_rng_state(),
        **({"objective": beside} if beside else {}),
    }


def _beside(objective: nn.Module | None, model: nn.Module) -> dict[str, Tensor]:
    """State of what an objective holds beside the model."""
    if objective is None:
        return {}
    own = {id(value) for value in model.state_dict(keep_vars=True).values()}
    state = objective.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if id(value) not in own}


def restore_state(
    state: Mapping[str, Any] | None,
    *,
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ModelEMA | None,
    averaged: Mapping[str, Any],
    objective: nn.Module | None = None,
) -> tuple[int, float, float]:
    """Put a captured state back; returns the epochs done, and the best AP50-95 and AP50 so far.

    Raises:
        CheckpointError: the checkpoint holds no training state, or that of another model,
            optimizer or objective.
    """
    if state is None:
        raise CheckpointError(
            "the checkpoint holds no training state to resume from: use latest_ckpt.pth, or give "
            "it with -c and -expn NAME, without --resume, to start a new run from its weights"
        )
    beside, saved = _beside(objective, model), state.get("objective", {})
    if {k: v.shape for k, v in beside.items()} != {k: v.shape for k, v in saved.items()}:
        raise CheckpointError(
            "the run was stopped with another objective, so it cannot go on: it also trained "
            f"{', '.join(saved) or 'nothing'}, this one {', '.join(beside) or 'nothing'}. Resume "
            "with the same --distill and distill_* fields"
        )
    with torch.no_grad():
        for name, value in beside.items():
            value.copy_(saved[name])
    options = [
        {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
    ]
    try:
        model.load_state_dict(state["raw_model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            "the run was stopped with another model or optimizer, so it cannot go on: resume with "
            "the Exp that it was started with, or start a new run from its weights, with -c and "
            f"-expn NAME ({str(error).splitlines()[0]})"
        ) from error
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)  # the recipe is the run's, as its other settings are
    if ema is not None:
        ema.ema.load_state_dict(averaged)
        ema.updates = state["ema_updates"]
    fabric._precision.load_state_dict(state["precision"])
    torch.set_rng_state(state["torch_rng"].cpu())
    return state["epoch"], *state["best"]


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ between the run that was stopped and the one that resumes it."""
    return [
        f"{name} {before.get(name)} → {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
