"""Small models of Ultralytics with made-up weights, and a data set in their layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

NAMES = ("square", "bar", "dot")
SIDE = 64
WIDTH = 0.125  # half of what they call nano


def make_detector(name: str = "yolov8n", classes: int = len(NAMES), seed: int = 0) -> Any:
    """A detector as its YAML builds it, batch norms as of a trained one, in evaluation mode."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(seed)
    yaml = yaml_model_load(f"{name}.yaml")
    yaml["scales"]["n"][1] = WIDTH
    model = DetectionModel(yaml, nc=classes, verbose=False)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    model.names = dict(enumerate(NAMES[:classes] if classes <= 3 else map(str, range(classes))))
    model.args = {"imgsz": SIDE, "data": None}
    return model.eval()


def make_data(folder: Path, names: Sequence[str] = NAMES, images: int = 8) -> Path:
    """A data set's YAML; as many training as validation images, two objects in each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            lines = []
            for kind in rng.choice(len(names), 2, replace=False):
                width, height = ((24, 24), (40, 10), (12, 12))[kind % 3]
                x, y = rng.integers(0, SIDE - width), rng.integers(0, SIDE - height)
                pixels[y : y + height, x : x + width] = 120 + 60 * (kind % 3)
                box = np.array((x + width / 2, y + height / 2, width, height)) / SIDE
                lines.append(f"{kind} " + " ".join(f"{value:.6f}" for value in box))
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            text = "\n".join(lines) + "\n"
            (folder / "labels" / split / f"{number}.txt").write_text(text)
    yaml = folder / "data.yaml"
    listed = "\n".join(f"  {number}: {name}" for number, name in enumerate(names))
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{listed}\n")
    return yaml


# Of the weights alone, in one round, channels as they fall.
CHEAP: dict[str, Any] = {
    "importance": "l1",
    "rounds": 1,
    "round_to": 1,
    "reconstruct": 0,
    "absorb": False,
}


def raw(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Predictions before decoding, boxes and scores, of a head in use while training."""
    with torch.no_grad():
        output = model(images)
    while isinstance(output, tuple):
        output = output[-1]
    output = output.get("one2many", output)
    return {key: output[key] for key in ("boxes", "scores")}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def labelled_batch(images: int = 2) -> dict[str, Any]:
    """Images with one object each, as their loaders give them."""
    pixels = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8)
    return {
        "img": pixels,
        "cls": torch.zeros(images, 1),
        "bboxes": torch.full((images, 4), 0.5),
        "batch_idx": torch.arange(images).float(),
    }
