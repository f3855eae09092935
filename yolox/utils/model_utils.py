"""Counting, fusing and temporarily switching modules."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode


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
    # Shapes alone decide: on the meta device nothing is computed.
    shell = copy.deepcopy(model).to("meta").float().eval()
    with torch.no_grad(), counter:
        shell(example_input.to("meta").float())
    prefix = type(model).__name__
    macs = {"": counter.get_total_flops() // 2}
    for name, by_op in counter.get_flop_counts().items():
        if name.startswith(prefix + "."):
            macs[name.removeprefix(prefix + ".")] = sum(by_op.values()) // 2
    return macs


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
    """Stop gradients and batch-norm statistics of a module (or of its child ``name``); in place."""
    target = module if name is None else module.get_submodule(name)
    target.requires_grad_(False)
    target.eval()
    return module


def fuse_model(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each batch norm folded into the convolution before it."""
    fused = copy.deepcopy(model).eval()
    for parent in fused.modules():
        conv, bn = getattr(parent, "conv", None), getattr(parent, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
            parent.conv = fuse_conv_bn_eval(conv, bn)
            parent.bn = nn.Identity()
    return fused
