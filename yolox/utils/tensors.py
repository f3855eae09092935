"""What tensors of a file may be: checks as those of `yolox.utils.schema`, and finite numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolox.utils.checkpoint import CheckpointError
from yolox.utils.schema import shown

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MAX_SHOWN = 5  # tensors in a message


def state_dict(value: Any, where: str) -> Iterator[str]:
    """Names with dense tensors of real numbers, in memory."""
    if not isinstance(value, Mapping):
        yield f"{where}: expected names with tensors, got {shown(value)}"
        return
    for name, tensor in value.items():
        if not isinstance(name, str):
            yield f"{where}: expected a text for a name, got {shown(name)}"
        else:
            yield from dense(tensor, name)


def dense(value: Any, where: str) -> Iterator[str]:
    """A dense tensor of real numbers, in memory."""
    if not isinstance(value, Tensor):
        yield f"{where}: expected a tensor, got {shown(value)}"
    elif kind := _oddity(value):
        yield f"{where}: expected a dense tensor of real numbers, got {kind}"


def _oddity(tensor: Tensor) -> str:
    """What makes a tensor unfit for weights; empty for nothing."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested:
        return f"a {'nested tensor' if tensor.is_nested else type(tensor).__name__}"
    if tensor.is_quantized:
        return "a quantized one"
    if tensor.layout != torch.strided:
        return "a sparse one"
    if tensor.is_meta:
        return "one without values (meta)"
    return f"{tensor.dtype}" if tensor.is_complex() else ""


def snapshot(value: Any) -> Any:
    """A copy of lists and mappings whose tensors are on the CPU and share no memory with others."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value))
    return value


def require_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that compute nothing, naming the tensors.

    Raises:
        CheckpointError: some are NaN or infinite, or a batch norm's variances negative.
    """
    problems = []
    for name, value in state.items():
        # The sum of finite numbers is finite, but for very large ones: it takes a tenth as long.
        if value.is_floating_point() and not torch.isfinite(value.sum()):
            odd = int((~torch.isfinite(value)).sum())
            if odd:
                problems.append(f"{name} ({odd} of {value.numel()} values)")
        if name.endswith(".running_var") and bool((value < 0).any()):
            problems.append(f"{name} (negative variances)")
    if problems:
        shown = ", ".join(problems[:_MAX_SHOWN])
        more = f" and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise CheckpointError(
            f"{path}: weights are not finite numbers, in {shown}{more}: its "
            "training went wrong, so take an earlier checkpoint or train again"
        )
