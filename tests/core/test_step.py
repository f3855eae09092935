"""One step's pieces, precision, and what a resumed run is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yolox.core import NonFiniteLossError, make_fabric
from yolox.core.state import recipe_changes
from yolox.core.step import LOSS_NAMES, forward_losses, resize_batch
from yolox.utils.errors import UserError


def test_resize_scales_boxes_with_the_image_and_mutates_nothing() -> None:
    images = torch.zeros(1, 3, 64, 64)
    images[..., 32:] = 100  # the right half
    targets = torch.tensor([[[1.0, 48.0, 32.0, 32.0, 64.0], [0, 0, 0, 0, 0]]])
    before = images.clone(), targets.clone()
    resized, scaled = resize_batch(images, targets, (32, 128))
    assert resized.shape == (1, 3, 32, 128)
    assert resized[..., :60].max() == 0
    assert resized[..., 68:].min() == 100
    assert scaled.tolist() == [[[1.0, 96.0, 16.0, 64.0, 32.0], [0, 0, 0, 0, 0]]]
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


def test_resize_to_the_same_size_is_nothing() -> None:
    images, targets = torch.rand(2, 3, 32, 64), torch.rand(2, 4, 5)
    same_images, same_targets = resize_batch(images, targets, (32, 64))
    assert same_images is images
    assert same_targets is targets


class _Fixed(nn.Module):
    def __init__(self, total: float) -> None:
        super().__init__()
        self.total = total

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(LOSS_NAMES, torch.tensor(1.0)) | {
            "total_loss": torch.tensor(self.total)
        }


@pytest.mark.parametrize("total", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_names_the_images(total: float) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        forward_losses(_Fixed(total), torch.empty(2), torch.empty(2), ["cat_7", "dog_9"])
    message = str(caught.value)
    assert "cat_7, dog_9" in message
    assert "basic_lr_per_img" in message
    assert f"total_loss {total}" in message
    assert isinstance(caught.value, UserError)


def test_a_finite_loss_passes() -> None:
    losses = forward_losses(_Fixed(2.5), torch.empty(1), torch.empty(1), ["a"])
    assert losses["total_loss"].item() == 2.5


def test_recipe_changes_names_both_values() -> None:
    before = {"lr": 0.1, "seed": 0, "gone": 1}
    assert recipe_changes(before, {"lr": 0.2, "seed": 0, "new": 2}) == [
        "gone 1 → None",
        "lr 0.1 → 0.2",
        "new None → 2",
    ]
    assert recipe_changes(before, dict(before)) == []


class _Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen: dict[str, Any] = {}

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        self.seen = {"targets": targets, "out": out.dtype}
        return out


@pytest.mark.parametrize(
    ("precision", "inner"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_mixed_precision_does_not_touch_the_boxes(precision: str, inner: torch.dtype) -> None:
    if torch.cuda.is_available():
        pytest.skip("is about the CPU")
    fabric = make_fabric(devices=1, precision=precision)
    model = _Recorder()
    wrapped = fabric.setup(model)
    targets = torch.tensor([[1.0, 301.3]])
    wrapped(torch.rand(2, 4), targets)
    assert torch.equal(model.seen["targets"], targets)
    assert model.seen["targets"].dtype == torch.float32
    assert model.seen["out"] == inner


def test_precisions_that_cannot_be_are_user_errors() -> None:
    if torch.cuda.is_available():
        pytest.skip("is about the CPU")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        make_fabric(precision="fp16")
    with pytest.raises(UserError, match="one of auto, fp32"):
        make_fabric(precision="fp8")
