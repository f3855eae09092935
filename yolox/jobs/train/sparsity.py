"""From an Exp's fields to the penalty of sparsity training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from loguru import logger
from torch import nn

from yolox.exp.checks import sparsity_config
from yolox.exp.yolox_base import Exp
from yolox.pruning.sparsity import Sparsity, make_sparsity


def sparsity_recipe(exp: Exp) -> dict[str, Any]:
    """The fields that decide a run with sparsity, by name; none without."""
    if exp.sparsity == 0:
        return {}
    names = ("form", "schedule", "warmup", "shift", "proximal")
    fields = ("sparsity", *(f"sparsity_{name}" for name in names))
    return {field: getattr(exp, field) for field in fields}


def build_sparsity(exp: Exp, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sparsity | None:
    """The penalty for training the model, on its device, with an optimizer.

    Raises:
        UserError: there is no batch norm to penalise.
    """
    config = sparsity_config(exp)
    if config is None:
        return None
    momentum = float(optimizer.defaults.get("momentum", 0.0))
    sparsity = make_sparsity(model, config, torch.zeros(1, 3, 64, 64), momentum=momentum)
    _warn_of_decay(optimizer, sparsity.scale_parameters())
    return sparsity


def _warn_of_decay(optimizer: torch.optim.Optimizer, scales: Iterable[nn.Parameter]) -> None:
    """Say so where an optimizer of the person's own decays what is penalised."""
    decayed = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("weight_decay")
        for parameter in group["params"]
    }
    if count := sum(id(parameter) in decayed for parameter in scales):
        logger.warning(
            f"the optimizer has weight decay on the scales of {count} batch norms that sparsity "
            "penalises: both pull at them; leave batch norms out of weight decay in get_optimizer"
        )
