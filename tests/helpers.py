"""What several test files need: golden files, the deterministic weights and image, the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolox.models import ModelSpec

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[1].parent / "shared"

SPECS: dict[str, ModelSpec] = {
    "yolox-nano": ModelSpec(depth=0.33, width=0.25, depthwise=True, input_size=(416, 416)),
    "yolox-tiny": ModelSpec(depth=0.33, width=0.375, input_size=(416, 416)),
    "yolox-s": ModelSpec(depth=0.33, width=0.5),
    "yolox-m": ModelSpec(depth=0.67, width=0.75),
    "yolox-l": ModelSpec(depth=1.0, width=1.0),
    "yolox-x": ModelSpec(depth=1.33, width=1.25),
    "yolov3": ModelSpec(architecture="yolov3", act="lrelu"),
}


def golden_json(name: str) -> Any:
    """A golden JSON file by name."""
    return json.loads((GOLDEN / name).read_text())


def shared(path: str) -> Path:
    """A file or folder of the data beside the project; skips the test where it is not there."""
    if not (SHARED / path).exists():
        pytest.skip(f"needs {path} beside the project")
    return SHARED / path


def deterministic_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the golden values were recorded with; see the golden files' description."""
    state = model.state_dict()
    for index, name in enumerate(sorted(state)):
        old = state[name]
        wave = np.sin(index + 0.37 * np.arange(old.numel(), dtype=np.float64)).reshape(old.shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(old.shape)
        elif name.endswith("running_var"):
            values = 1 + 0.25 * wave
        elif name.endswith("running_mean"):
            values = 0.1 * wave
        elif name.endswith("weight") and old.dim() == 1:
            values = 1 + 0.2 * wave
        elif name.endswith("bias"):
            values = 0.1 * wave
        else:
            values = wave * np.sqrt(3 / np.prod(old.shape[1:]))
        state[name] = torch.from_numpy(np.asarray(values)).to(old.dtype)
    return state


def deterministic_image(batch: int, height: int, width: int) -> Tensor:
    """The image that the golden values were recorded with, (batch, 3, height, width)."""
    k = np.arange(batch * 3 * height * width, dtype=np.float64)
    values = 114 + 100 * np.sin(0.01 * k + 0.0007 * k**1.1)
    return torch.from_numpy(values.reshape(batch, 3, height, width)).float()
