"""Counting, fusing and temporarily switching modules."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

_Module = TypeVar("_Module", bound=nn.Module)


def copy_model(model: _Module, made: Mapping[int, Any] | None = None) -> _Module:
    """What `copy.deepcopy` makes of a model, in half of the time.

    Every layer has a dozen tables of hooks, nearly all of them empty, and every batch norm three
    buffers: deepcopy spends more time on taking these apart than on the weights of a small model.

    Args:
        model: not touched.
        made: what takes the place of objects of the model, by their `id`; as deepcopy's memo.
    """
    copies: dict[int, Any] = dict(made or {})
    for module in model.modules():
        for value in vars(module).values():
            if type(value) in (OrderedDict, dict, set) and not value:
                copies[id(value)] = type(value)()
        if isinstance(module, _BatchNorm):
            for buffer in module.buffers(recurse=False):
                if id(buffer) not in copies and _is_whole(buffer):
                    copies[id(buffer)] = buffer.clone()
    return copy.deepcopy(model, copies)


def _is_whole(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.untyped_storage().nbytes() == tensor.nbytes


def cast_model(model: _Module, device: str, dtype: torch.dtype) -> _Module:
    """A copy on a device, its floats of a type, without one in the model's own on the way.

    Args:
        model: not touched.
        device: such as ``cpu``.
        dtype: of floating-point tensors; others keep theirs.
    """
    made: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        new = tensor.detach().to(device, kind, copy=True)
        is_parameter = isinstance(tensor, nn.Parameter)
        made[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
    # Scripted modules are copied by themselves, with their own tensors.
    return copy_model(model, made).to(device, dtype)


def count_params(model: nn.Module) -> int:
    """Number of parameters (buffers not counted)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, example_input: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one evaluation forward pass, by module name.

    Args:
        model: not touched.
        example_input: float (1, 3, H, W).

    Returns:
        Convolution and matrix products only, as is usual; a module's number holds those of its
        children, and ``""`` is the whole model. FLOPs are twice as many.
    """
    counter = FlopCounterMode(display=False)

    def count(shell: nn.Module, x: Tensor) -> None:
        nonlocal counter
        counter = FlopCounterMode(display=False)
        with counter:
            shell(x)

    run_shapes(model, example_input, count)
    prefix = type(model).__name__
    macs = {"": counter.get_total_flops() // 2}
    for name, by_op in counter.get_flop_counts().items():
        if name.startswith(prefix + "."):
            macs[name.removeprefix(prefix + ".")] = sum(by_op.values()) // 2
    return macs


@torch.no_grad()
def run_shapes(
    model: nn.Module, example_input: Tensor, run: Callable[[nn.Module, Tensor], object]
) -> None:
    """Let `run` call a copy of a model in evaluation mode where shapes alone matter.

    On the meta device nothing is computed, and batch norms, which change no shape and are slow
    there, hand on their input. A model that reads values or makes tensors elsewhere as it runs
    does not go there; then `run` is called again with a copy on the CPU.
    """
    try:
        shell = cast_model(model, "meta", torch.float32).eval()
        for module in shell.modules():
            if isinstance(module, _BatchNorm):
                module.forward = _identity  # type: ignore[method-assign, assignment]
        with torch.device("meta"):
            run(shell, example_input.to("meta").float())
    except Exception:  # whatever a model of another's may raise there
        run(copy_model(model).cpu().float().eval(), example_input.detach().cpu().float())


def _identity(x: Tensor) -> Tensor:
    return x


def batch_norm_scales(model: nn.Module) -> dict[str, npt.NDArray[np.float64]]:
    """|γ| (channels,) of each batch norm that has one, by its name."""
    return {
        name: module.weight.detach().cpu().double().abs().numpy()
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.weight, nn.Parameter)
    }


def part_of(name: str) -> str:
    """The part of a network that a module is in: ``dark3``, ``C3_p4``, ``cls_convs``."""
    inner = [part for part in name.split(".") if part not in ("backbone", "head", "model")]
    return inner[0] if inner else name


@contextmanager
def adjust_status(module: nn.Module, training: bool = False) -> Iterator[nn.Module]:
    """Put a module and its children into a mode, and each back into its own afterwards."""
    before = {child: child.training for child in module.modules()}
    module.train(training)
    try:
        yield module
    finally:
        for child, mode in before.items():
            child.training = mode


def freeze_module(module: nn.Module, name: str | None = None) -> nn.Module:
    """Stop gradients and batch-norm statistics of a module, in place, for as long as it trains.

    Args:
        module: changed in place.
        name: freeze only the parameters and submodules in whose dotted name this occurs, as
            ``"backbone.backbone"``; all by default.
    """
    for parameter_name, parameter in module.named_parameters():
        if name is None or name in parameter_name:
            parameter.requires_grad_(False)
    for child_name, child in module.named_modules():
        if name is None or name in child_name:
            child.eval()
    return module


def replace_module(
    module: nn.Module,
    replaced_module_type: type[nn.Module],
    new_module_type: type[nn.Module],
    replace_func: Callable[[nn.Module, type[nn.Module]], nn.Module] | None = None,
) -> nn.Module:
    """Replace every submodule of a type, in place; returns the module (or what replaces it).

    Args:
        module: changed in place.
        replaced_module_type: what is replaced, subclasses too.
        new_module_type: what takes its place.
        replace_func: makes the new module from an old one and the new type; by default the new
            type is called without arguments.
    """
    if isinstance(module, replaced_module_type):
        make = replace_func or (lambda _, new_type: new_type())
        return make(module, new_module_type)
    for name, child in module.named_children():
        new = replace_module(child, replaced_module_type, new_module_type, replace_func)
        if new is not child:
            setattr(module, name, new)
    return module


def get_model_info(model: nn.Module, tsize: tuple[int, int]) -> str:
    """Size of a model as text: parameters, and FLOPs (2 × MACs) of an image of (height, width)."""
    macs = count_macs(model, torch.zeros(1, 3, *tsize))[""]
    return f"Params: {count_params(model) / 1e6:.2f}M, Gflops: {2 * macs / 1e9:.2f}"


def fitting_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a state dict whose names and shapes are the model's, in the model's order."""
    own = model.state_dict()
    return {
        name: state[name] for name in own if name in state and state[name].shape == own[name].shape
    }


def load_ckpt(model: nn.Module, ckpt: Mapping[str, Tensor]) -> nn.Module:
    """Load what fits of a state dict, in place; what is missing or of another shape is logged.

    `yolox.models.transfer_weights` does the same with a report, and refuses another model's file.
    """
    fit = fitting_tensors(model, ckpt)
    if left := [name for name in model.state_dict() if name not in fit]:
        logger.warning(f"{len(left)} tensors are not in the checkpoint or differ: {left[:5]}")
    model.load_state_dict(fit, strict=False)
    return model


def is_parallel(model: nn.Module) -> bool:
    """Whether a model is wrapped for several devices."""
    return isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))


def fuse_model(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each batch norm folded into the convolution before it."""
    fused = copy_model(model).eval()
    for parent in fused.modules():
        conv, bn = getattr(parent, "conv", None), getattr(parent, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, _BatchNorm):
            parent.conv = fuse_conv_bn_eval(conv, bn)
            parent.bn = nn.Identity()
    return fused
