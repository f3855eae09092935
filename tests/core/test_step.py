"""One step's pieces, precision, and what a resumed run is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yolox.core import NonFiniteLossError, PeerLostError, make_fabric, step
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


def test_a_teachers_part_that_is_not_finite_is_not_blamed_on_the_images() -> None:
    model = _Fixed(float("nan"))
    own = model(torch.empty(1), torch.empty(1))
    model.forward = lambda *_: (
        own
        | {  # type: ignore[method-assign]
            "distill_loss": torch.tensor(float("nan")),
            "distill_box_loss": torch.tensor(float("nan")),
        }
    )
    with pytest.raises(NonFiniteLossError) as caught:
        forward_losses(model, torch.empty(2), torch.empty(2), ["cat_7", "dog_9"])
    message = str(caught.value)
    assert "distill_loss nan, distill_box_loss nan" in message
    assert "The teacher's part alone is not" in message
    assert "annotations" not in message


def test_a_finite_loss_passes() -> None:
    losses = forward_losses(_Fixed(2.5), torch.empty(1), torch.empty(1), ["a"])
    assert losses["total_loss"].item() == 2.5


class _OfOne(nn.Module):
    """What one process of two computes of its own images."""

    def __init__(self, foreground: int, loss: float) -> None:
        super().__init__()
        self.losses = dict.fromkeys(LOSS_NAMES, torch.tensor(loss))
        self.losses |= {"num_fg": torch.tensor(1.5), "foreground": torch.tensor(float(foreground))}

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return self.losses


def _as_one_of_two(monkeypatch: pytest.MonkeyPatch, rank: int, other: tuple[float, float]) -> None:
    """Let the step believe that another process told this: whether finite, foreground anchors."""

    def gather(own: Tensor) -> Tensor:
        parts = [own, torch.tensor(other)]
        return torch.stack(parts if rank == 0 else parts[::-1])

    monkeypatch.setattr(step, "get_world_size", lambda: 2)
    monkeypatch.setattr(step, "get_rank", lambda: rank)
    monkeypatch.setattr(step, "gather_values", gather)


@pytest.mark.parametrize(
    ("own", "others", "factor"),
    [(3, 3, 1.0), (6, 2, 1.5), (2, 6, 0.5), (0, 4, 0.5), (4, 0, 2.0), (0, 0, 2.0)],
)
def test_losses_of_processes_average_to_that_of_all_their_images(
    monkeypatch: pytest.MonkeyPatch, own: int, others: int, factor: float
) -> None:
    """The factor: own divisor, over (the divisor of all images together, over two processes)."""
    _as_one_of_two(monkeypatch, 0, (1, others))
    losses = forward_losses(_OfOne(own, 3.0), torch.empty(1), torch.empty(1), ["a"])
    for name in LOSS_NAMES:
        assert losses[name].item() == pytest.approx(3.0 * factor)
    assert losses["num_fg"].item() == 1.5


@pytest.mark.parametrize(
    ("rank", "loss", "other_finite", "error"),
    [
        (0, float("nan"), 1, NonFiniteLossError),
        (1, float("nan"), 1, NonFiniteLossError),
        (0, float("nan"), 0, NonFiniteLossError),
        (1, float("nan"), 0, PeerLostError),
        (0, 1.0, 0, PeerLostError),
    ],
)
def test_the_first_process_that_diverged_tells(
    monkeypatch: pytest.MonkeyPatch, rank: int, loss: float, other_finite: float, error: Any
) -> None:
    _as_one_of_two(monkeypatch, rank, (other_finite, 5))
    with pytest.raises(error):
        forward_losses(_OfOne(5, loss), torch.empty(1), torch.empty(1), ["a"])


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
    with pytest.raises(UserError, match="needs a GPU: use bf16 or auto on a CPU"):
        make_fabric(precision="fp16")
    with pytest.raises(UserError, match="one of auto, fp32"):
        make_fabric(precision="fp8")
