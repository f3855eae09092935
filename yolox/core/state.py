"""What a run needs to go on exactly where it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from yolox.core.optim import start_momentum
from yolox.utils.checkpoint import CheckpointError
from yolox.utils.device import random_state, set_random_state
from yolox.utils.ema import ModelEMA
from yolox.utils.schema import integer, listing, mapping, number, plain, record, require, shown
from yolox.utils.tensors import dense, require_finite, state_dict

_LIKE_WEIGHTS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")  # in shape
_MAX_SHOWN = 5  # problems in a message


@dataclass(frozen=True)
class Position:
    """Where a run is in an epoch.

    Attributes:
        iteration: how many are done, the last of which updated the weights.
        iterations: how many the epoch has.
        recent: number of batches that the run kept; see `RecentImages`.
    """

    iteration: int
    iterations: int
    recent: int


def position_of(state: Mapping[str, Any]) -> Position | None:
    """The position in a checked training state, None between epochs."""
    return Position(**state["position"]) if "position" in state else None


def capture_state(
    *,
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ModelEMA | None,
    epoch: int,
    best: tuple[float, float],
    start: float | None = None,
    objective: nn.Module | None = None,
    position: Position | None = None,
) -> dict[str, Any]:
    """The ``train`` entry of a checkpoint, taken between two updates of the weights.

    Args:
        fabric: whose precision's scaler is saved, too.
        model: that is trained.
        optimizer: as `Fabric.setup` returned it.
        ema: the average of the weights, None where there is none.
        epoch: number of epochs done.
        best: AP50-95 and AP50 of the best evaluation so far.
        start: AP50-95 before the first step, where it was measured.
        objective: what computes the losses, if not the model; see `Trainer`.
        position: in the epoch after those; None at its start.
    """
    beside = {name: value.detach().cpu() for name, value in _beside(objective, model).items()}
    return {
        "epoch": epoch,
        "best": list(best),
        # The file's "model" is the average; the weights being trained are others.
        "raw_model": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "ema_updates": ema.updates if ema else 0,
        # As all tensors of a file, on the CPU: it is read where there is no such device, too.
        "optimizer": tree_map_only(Tensor, Tensor.cpu, optimizer.state_dict()),
        "precision": fabric._precision.state_dict(),
        "torch_rng": torch.get_rng_state(),
        **({} if start is None else {"start": start}),
        **({"objective": beside} if beside else {}),
        **({"device_rng": state} if (state := random_state(fabric.device)) else {}),
        **({"position": dataclasses.asdict(position)} if position else {}),
    }


def _beside(objective: nn.Module | None, model: nn.Module) -> dict[str, Tensor]:
    """State of what an objective holds beside the model."""
    if objective is None:
        return {}
    own = {id(value) for value in model.state_dict(keep_vars=True).values()}
    state = objective.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if id(value) not in own}


def no_training_state(name: object) -> CheckpointError:
    """The error of resuming from a checkpoint, called so, that holds weights alone."""
    return CheckpointError(
        f"{name} holds no training state to resume from: use latest_ckpt.pth, or give it as "
        "`checkpoint` with another `name`, without `resume`, to start a new run from its weights"
    )


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
        raise no_training_state("the checkpoint")
    require(state, _STATE, "the checkpoint's training state is wrong", CheckpointError)
    require_finite(state["raw_model"], "the checkpoint's training state")
    beside, saved = _beside(objective, model), state.get("objective", {})
    if {k: v.shape for k, v in beside.items()} != {k: v.shape for k, v in saved.items()}:
        raise CheckpointError(
            "the run was stopped with another objective, so it cannot continue: it also trained "
            f"{', '.join(saved) or 'nothing'}, this one {', '.join(beside) or 'nothing'}. Resume "
            "with the same `teacher` and distill_* fields"
        )
    with torch.no_grad():
        for name, value in beside.items():
            value.copy_(saved[name])
    options = [
        {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
    ]
    misfits = _misfits(state["optimizer"], optimizer)
    try:
        if misfits:
            raise ValueError("; ".join(misfits[:_MAX_SHOWN]))
        model.load_state_dict(state["raw_model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            "the run was stopped with another model or optimizer, so it cannot continue: resume "
            "with the Exp that it was started with, or start a new run from its weights, as "
            f"`checkpoint` with another `name` ({str(error).splitlines()[0]})"
        ) from error
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)  # the recipe is the run's, as its other settings are
    start_momentum(optimizer)  # of weights that had none in the file
    if ema is not None:
        ema.ema.load_state_dict(averaged)
        ema.updates = state["ema_updates"]
    try:
        fabric._precision.load_state_dict(state["precision"])
        torch.set_rng_state(state["torch_rng"].cpu())
        set_random_state(fabric.device, state.get("device_rng", {}))
    except (RuntimeError, TypeError, KeyError) as error:
        raise CheckpointError(
            "the run was stopped with another precision or version of PyTorch, so it cannot "
            f"continue to the bit ({str(error).splitlines()[0]}): continue as it was started, or "
            "start a new run from its weights, as `checkpoint` with another `name`"
        ) from error
    return state["epoch"], *state["best"]


def epochs_done(content: Mapping[str, Any]) -> int:
    """Epochs that the run of a checkpoint has done; 0 where it holds no training state."""
    state = content.get("train", {})
    check = record({}, {"epoch": _EPOCH})
    require(state, check, "the checkpoint's training state is wrong", CheckpointError)
    return int(state.get("epoch", 0))


def _optimizer_state(value: Any, where: str) -> Iterator[str]:
    """Numbers of weights, each with names that have tensors or plain values."""
    if not isinstance(value, Mapping):
        yield f"{where}: expected numbers with values, got {shown(value)}"
        return
    for index, slot in value.items():
        if not isinstance(index, int) or not isinstance(slot, Mapping):
            yield f"{where}: expected numbers with names, got {shown(index)}: {shown(slot)}"
            continue
        for name, item in slot.items():
            check = dense if isinstance(item, Tensor) else plain
            yield from check(item, f"{where}.{index}.{shown(name)}")


_EPOCH = integer(0, 1_000_000)
_COUNT = integer(0, 1 << 40)
_POSITION = record({"iteration": _COUNT, "iterations": _COUNT, "recent": _COUNT})
_STATE = record(
    {
        "epoch": _EPOCH,
        "best": listing(number(), length=2),
        "raw_model": state_dict,
        "ema_updates": integer(0, 1 << 60),
        "optimizer": record(
            {
                "state": _optimizer_state,
                "param_groups": listing(record({"params": listing(integer(0, 1 << 31))})),
            }
        ),
        "precision": mapping(plain),
        "torch_rng": dense,
    },
    {
        "objective": state_dict,
        "device_rng": mapping(dense),
        "start": number(),
        "position": _POSITION,
    },
)


def _misfits(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> list[str]:
    """What the optimizer would only find wrong in its first step."""
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return [
        f"{name} of weight {index} has shape {_shape(value)}, not {tuple(weight.shape)}"
        for index, weight in zip(indices, weights, strict=False)
        for name, value in saved["state"].get(index, {}).items()
        if name in _LIKE_WEIGHTS and value is not None and _shape(value) != tuple(weight.shape)
    ]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ between the run that was stopped and the one that resumes it."""
    return [
        f"{name} {before.get(name)} → {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
