"""timm, torchvision and Ultralytics, where `make networks` has put them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch

# What torchvision looks for as it is imported. Its wheel brings these for the PyTorch that it was
# built beside, and does not import beside another.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor x, Tensor rois, float scale, SymInt height, SymInt width, int ratio, "
    "bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float scale, SymInt height, SymInt width, "
    "SymInt batch, SymInt channels, SymInt h, SymInt w, int ratio, bool aligned) -> Tensor",
    "ps_roi_align(Tensor x, Tensor rois, float scale, SymInt height, SymInt width, int ratio) "
    "-> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor mapping, float scale, SymInt height, "
    "SymInt width, int ratio, SymInt batch, SymInt channels, SymInt h, SymInt w) -> Tensor",
    "roi_pool(Tensor x, Tensor rois, float scale, SymInt height, SymInt width) -> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float scale, SymInt height, "
    "SymInt width, SymInt batch, SymInt channels, SymInt h, SymInt w) -> Tensor",
    "ps_roi_pool(Tensor x, Tensor rois, float scale, SymInt height, SymInt width) "
    "-> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor mapping, float scale, SymInt height, "
    "SymInt width, SymInt batch, SymInt channels, SymInt h, SymInt w) -> Tensor",
    "deform_conv2d(Tensor x, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
    "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor x, Tensor weight, Tensor offset, Tensor mask, "
    "Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, "
    "SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_defined: list[torch.library.Library] = []


def library(name: str) -> ModuleType:
    """A library of other people's networks; the test is skipped where it is not installed."""
    if importlib.util.find_spec("torchvision") is None or importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} and torchvision are not installed: make networks")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        _defined.append(torch.library.Library("torchvision", "DEF"))
        for schema in _OPERATORS:
            _defined[0].define(schema)
    return importlib.import_module(name)
