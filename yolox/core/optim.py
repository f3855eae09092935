"""The optimizer of YOLOX training."""

from __future__ import annotations

import torch
from torch import nn


def build_sgd(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """SGD with Nesterov momentum (plain at 0); weight decay not on batch norms and biases."""
    norms, weights, biases = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias"):
                biases.append(parameter)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                norms.append(parameter)
            else:
                weights.append(parameter)
    groups = [
        {"params": norms, "weight_decay": 0.0},
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)


@torch.no_grad()
def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give what SGD trains, and has no momentum yet, one of 0, which the first step starts from.

    A fused step that a loss scale of fp16 leaves out, as the first ones are, would keep the memory
    that it has just allocated for the momentum, whatever is in there. Other optimizers, which a
    person's Exp may build, are left alone.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if not group["momentum"]:
            continue
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.requires_grad and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
