"""Hand-made samples, detections, a model and a loader that know them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from yolox.evaluators import ImageDetections


@dataclass(frozen=True)
class FakeSample:
    image_id: int
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    height: int = 100
    width: int = 200
    name: str = "image"


def sample(image_id, objects, **kwargs):
    """``objects``: (class, x1, y1, x2, y2) or (class, x1, y1, x2, y2, difficult)."""
    return FakeSample(
        image_id=image_id,
        boxes=np.array([o[1:5] for o in objects], np.float32).reshape(-1, 4),
        classes=np.array([o[0] for o in objects], np.int64),
        difficult=np.array([len(o) > 5 and o[5] for o in objects], bool),
        **kwargs,
    )


def detections(image_id, rows):
    """``rows``: (class, score, x1, y1, x2, y2)."""
    return ImageDetections(
        image_id=image_id,
        boxes=np.array([r[2:] for r in rows], np.float32).reshape(-1, 4),
        scores=np.array([r[1] for r in rows], np.float32),
        classes=np.array([r[0] for r in rows], np.int64),
    )


def perfect(samples):
    return [
        detections(s.image_id, [(c, 0.9, *b) for c, b in zip(s.classes, s.boxes, strict=True)])
        for s in samples
    ]


@dataclass
class FakeDataset:
    samples: list
    class_names: tuple[str, ...]


@dataclass
class FakeLoader:
    """Every pixel of an image holds its id, which is how :class:`FakeModel` knows it."""

    dataset: FakeDataset
    img_size: tuple[int, int] = (64, 96)
    batch_size: int = 2
    only: list[int] | None = None
    seen: list = field(default_factory=list)

    def __iter__(self):
        chosen = [s for s in self.dataset.samples if self.only is None or s.image_id in self.only]
        for start in range(0, len(chosen), self.batch_size):
            batch = chosen[start : start + self.batch_size]
            ids = torch.tensor([[s.image_id] for s in batch])
            images = ids.float()[..., None, None].expand(-1, 3, *self.img_size)
            sizes = [
                torch.tensor([s.height for s in batch]),
                torch.tensor([s.width for s in batch]),
            ]
            yield images, None, sizes, ids


class FakeModel(nn.Module):
    """Predicts the ground truth of ``samples``, each object twice, and one unlikely box."""

    def __init__(self, samples, num_classes, img_size=(64, 96)):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.frozen = nn.BatchNorm2d(3)
        self.samples = {s.image_id: s for s in samples}
        self.num_classes = num_classes
        self.img_size = img_size
        self.modes = []

    def forward(self, images):
        self.modes.append((self.training, self.frozen.training, torch.is_inference_mode_enabled()))
        most = max(len(s.boxes) for s in self.samples.values())
        out = torch.zeros(len(images), 2 * most + 1, 5 + self.num_classes)
        out[:, -1] = torch.tensor([9.0, 9, 9, 9, 0.01] + [0.5] * self.num_classes)
        for i, image_id in enumerate(images[:, 0, 0, 0].int().tolist()):
            s = self.samples[image_id]
            ratio = min(self.img_size[0] / s.height, self.img_size[1] / s.width)
            for j, (box, class_id) in enumerate(zip(s.boxes * ratio, s.classes, strict=True)):
                x1, y1, x2, y2 = box.tolist()
                row = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.8])
                out[i, 2 * j : 2 * j + 2, :5] = row
                out[i, 2 * j : 2 * j + 2, 5 + int(class_id)] = torch.tensor([0.9, 0.6])
        return out
