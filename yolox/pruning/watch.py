"""A model from outside: where it is as it runs, and which of its layers cannot be cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from yolox.pruning.config import PruningError

LAYER_TYPES = (_ConvNd, _BatchNorm, nn.Linear, nn.PReLU)
MAX_ERROR_LENGTH = 160  # characters of another library's message


def watch_calls(model: nn.Module) -> list[str]:
    """Names of the modules that are running, outermost first, as the model is called.

    After an error the list still holds where it was; clear it before the next call.
    """
    running: list[str] = []

    def enter(module: nn.Module, _args: Any) -> None:
        running.append(names[module])

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        running.pop()

    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
            continue
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    return running


def describe(model: nn.Module, name: str) -> str:
    """A module's name and class, for a message."""
    return f"{name or 'the model'} ({type(model.get_submodule(name)).__name__})"


def one_line(error: BaseException) -> str:
    """An error's message, short enough for a sentence of ours."""
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_ERROR_LENGTH else f"{text[:MAX_ERROR_LENGTH]} …"


def fixed_layers(model: nn.Module) -> dict[str, str]:
    """Layers whose weights cannot be cut on their own, by name, and why.

    Raises:
        PruningError: a weight is no parameter but computed by a hook, and cannot be copied.
    """
    fixed: dict[str, str] = {}
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                raise PruningError(
                    f"{key} of {describe(model, name)} is computed from other tensors, as by "
                    "torch.nn.utils.weight_norm, spectral_norm or prune: make it a parameter first "
                    "(remove_weight_norm, remove_spectral_norm, prune.remove)"
                )
        for parameter in module.parameters(recurse=False):
            if parameter.numel() and not parameter.is_meta:
                owners.setdefault(parameter.data_ptr(), []).append(name)
        if isinstance(module, LAYER_TYPES) and "weight" not in module._parameters:
            by = "a hook"
            if is_parametrized(module, "weight"):
                by = type(model.get_submodule(f"{name}.parametrizations.weight.0")).__name__
            fixed[name] = f"(its weight is computed by {by})"
    for names in owners.values():
        for name in names if len(set(names)) > 1 else ():
            if isinstance(model.get_submodule(name), LAYER_TYPES):
                others = ", ".join(other or "the model" for other in names if other != name)
                fixed[name] = f"(shares a parameter with {others})"
    return fixed
