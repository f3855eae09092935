"""The loss by hand where that can be done, and finite where labels are odd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models.test_assigner import SCENES
from yolox.models import YOLOX, ModelSpec, build_model
from yolox.models.losses import detection_loss, iou_loss, l1_target
from yolox.models.yolo_head import HeadOutput, decode, decode_boxes

NAMES = {"total_loss", "iou_loss", "l1_loss", "conf_loss", "cls_loss", "num_fg", "foreground"}


def detector(num_classes: int = 3) -> YOLOX:
    torch.manual_seed(0)
    spec = ModelSpec(depth=0.33, width=0.125, num_classes=num_classes)
    return build_model(spec).train()


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 128, 128, generator=generator) * 255


def test_iou_loss_by_hand() -> None:
    box = torch.tensor([[2, 2, 4, 4.0], [2, 2, 4, 4], [2, 2, 4, 4]])
    target = torch.tensor([[2, 2, 4, 4.0], [4, 2, 4, 4], [50, 50, 4, 4]])
    expected = torch.tensor([0, 1 - (1 / 3) ** 2, 1])
    torch.testing.assert_close(iou_loss(box, target), expected)


def test_l1_target_is_what_decodes_to_the_box() -> None:
    box = torch.tensor([[20.0, 37, 50, 9], [100, 3, 2, 120]])
    grid, stride = torch.tensor([[2.0, 4], [3, 0]]), torch.tensor([8.0, 32])
    raw = l1_target(box, grid, stride)
    decoded = decode_boxes(HeadOutput(raw[None], grid, stride))
    torch.testing.assert_close(decoded[0], box)


def one_anchor_head() -> tuple[HeadOutput, Tensor]:
    """A single anchor at (16, 16), its box 40 wide, on an object 20 wide: IoU 0.5."""
    raw = torch.tensor([[[0.5, 0.5, math.log(40 / 32), math.log(20 / 32), 0.3, -0.2, 0.8]]])
    out = HeadOutput(raw, torch.zeros(1, 2), torch.tensor([32.0]))
    return out, torch.tensor([[[1, 16.0, 16, 20, 20]]])


def test_loss_of_one_anchor_by_hand() -> None:
    out, labels = one_anchor_head()
    losses = detection_loss(out, labels, use_l1=True)

    def bce(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    expected = {
        "iou_loss": 5 * (1 - 0.5**2),
        "conf_loss": bce(0.3, 1),
        "cls_loss": bce(-0.2, 0) + bce(0.8, 0.5),  # the target is the IoU reached
        "l1_loss": math.log(2),
        "num_fg": 1.0,
        "foreground": 1.0,
    }
    expected["total_loss"] = sum(expected.values()) - 2
    assert set(losses) == NAMES
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5), name
    without = detection_loss(out, labels, use_l1=False)
    assert without["l1_loss"] == 0
    assert without["total_loss"].item() == pytest.approx(expected["total_loss"] - math.log(2))


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_images_without_objects_teach_the_background(rows: int) -> None:
    model = detector()
    losses = model(images(2), torch.zeros(2, rows, 5))
    raw = model.raw(images(2)).raw_BAK[..., 4]
    assert losses["conf_loss"].item() == pytest.approx(
        torch.nn.functional.softplus(raw).sum().item(), rel=1e-4
    )
    assert losses["iou_loss"] == losses["cls_loss"] == losses["l1_loss"] == losses["num_fg"] == 0
    losses["total_loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("use_l1", [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_losses_and_gradients_are_finite(scene: str, use_l1: bool) -> None:
    labels = SCENES[scene]
    model = detector()
    model.head.use_l1 = use_l1
    losses = model(images(len(labels)), labels)
    assert all(value.isfinite() for value in losses.values())
    losses["total_loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_one_class() -> None:
    model = detector(num_classes=1)
    labels = torch.tensor([[[0, 64.0, 64, 40, 40]]])
    losses = model(images(1), labels)
    losses["total_loss"].backward()
    assert losses["cls_loss"] > 0
    assert losses["num_fg"] >= 1


def test_padding_changes_nothing() -> None:
    model = detector().eval()
    labels = SCENES["plain"]
    wider = torch.cat((torch.zeros(2, 3, 5), labels, torch.zeros(2, 40, 5)), dim=1)
    with torch.no_grad():
        a, b = model.loss(images(2), labels), model.loss(images(2), wider)
    for name in NAMES:
        assert a[name].item() == pytest.approx(b[name].item(), rel=1e-6), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_under_autocast(dtype: torch.dtype) -> None:
    model = detector()
    labels = SCENES["plain"]
    with torch.autocast("cpu", dtype=dtype):
        assert model.raw(images(2)).raw_BAK.dtype == dtype
        losses = model(images(2), labels)
    full = model(images(2), labels)
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        assert value.item() == pytest.approx(full[name].item(), rel=0.1, abs=0.1), name
    losses["total_loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_labels_may_come_in_another_precision() -> None:
    out, labels = one_anchor_head()
    a = detection_loss(out, labels, use_l1=True)
    b = detection_loss(out, labels.double(), use_l1=True)
    assert all(torch.equal(a[name], b[name]) for name in NAMES)


def test_detections_are_pixels_and_probabilities_never_in_half_precision() -> None:
    out, _ = one_anchor_head()
    expected = [16, 16, 40, 20, *torch.tensor([0.3, -0.2, 0.8]).sigmoid().tolist()]
    assert decode(out)[0, 0].tolist() == pytest.approx(expected)
    half = out._replace(raw_BAK=out.raw_BAK.bfloat16())
    assert decode(half).dtype == torch.float32
    assert decode(out._replace(raw_BAK=out.raw_BAK.double())).dtype == torch.float64


def test_training_without_targets_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs targets"):
        detector()(images(1))


@pytest.mark.parametrize("size", [(128, 100), (33, 64)])
def test_a_size_that_the_strides_do_not_divide_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        detector().eval()(torch.rand(1, 3, *size))
