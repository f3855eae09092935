"""Checkpoints of lively random weights, images, and what PyTorch makes of them."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.helpers import SPECS
from tests.pruning.helpers import enliven, random_plan
from yolox.models import ModelSpec, build_model, checkpoint_payload, load_model
from yolox.pruning import apply_plan, trace_groups
from yolox.utils.checkpoint import save_checkpoint

SIZE = (64, 64)
NAMES = ("cat", "Hund", "猫")
SMALL = {"num_classes": 3, "class_names": NAMES, "input_size": SIZE}
MODELS: dict[str, ModelSpec] = {
    "nano": dataclasses.replace(SPECS["yolox-nano"], **SMALL),
    "tiny": dataclasses.replace(SPECS["yolox-tiny"], **SMALL),
    "slim": dataclasses.replace(SPECS["yolox-s"], width=0.125, **SMALL),
}
PRUNINGS = {"dense": 0, "pruned": 1, "twice": 2}


def write_checkpoint(folder: Path, kind: str, act: str, state: str) -> Path:
    """A checkpoint, pruned at random as often as its state says."""
    spec = dataclasses.replace(MODELS[kind], act=act)
    model: Any = enliven(build_model(spec)).eval()
    history = []
    for turn in range(PRUNINGS[state]):
        groups = trace_groups(model, torch.rand(1, 3, *SIZE))
        plan = random_plan(groups, random.Random(turn), share=0.5)
        model = apply_plan(model, groups, plan)
        history.append({"plan": plan.to_dict()})
    path = folder / f"{kind}_{act}_{state}.pth"
    save_checkpoint(path, checkpoint_payload(model, spec, history))
    return path


def images(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Noise (count, 3, height, width), 0 to 255, the same at every call."""
    return 255 * torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def reference(path: Path, x: Tensor, *, decode: bool = True) -> Tensor:
    """Straight from the model, by other means than the exporter's."""
    model = load_model(path).model
    if decode:
        out = model(x)
        assert isinstance(out, Tensor)
        return out
    raw = model.raw(x).raw_BAK
    return torch.cat((raw[..., :4], 1 / (1 + (-raw[..., 4:]).exp())), dim=-1)
