"""Names, shapes, outputs, losses and gradients against values recorded from the official code."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from tests.helpers import (
    GOLDEN,
    SPECS,
    deterministic_image,
    deterministic_state,
    golden_json,
    shared,
)
from yolox.models import YOLOX, build_model, infer_spec, load_model


@pytest.mark.parametrize("name", SPECS)
def test_state_dict_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        state = build_model(SPECS[name]).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == dict(
        golden_json(f"state_dict_{name}.json")
    )


@pytest.mark.parametrize("name", SPECS)
def test_spec_is_inferred_from_shapes(name: str) -> None:
    with torch.device("meta"):
        state = build_model(SPECS[name]).state_dict()
    assert infer_spec(state) == SPECS[name]


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s", "yolov3"])
def test_forward_gives_the_golden_values(name: str) -> None:
    golden = np.load(GOLDEN / f"forward_{name}.npz")
    model = build_model(SPECS[name])
    model.load_state_dict(deterministic_state(model), strict=True)
    height, width = (int(size) for size in golden["size"])
    with torch.inference_mode():
        output = model.eval()(deterministic_image(1, height, width))
    np.testing.assert_allclose(output.numpy(), golden["output"], rtol=1e-4, atol=1e-4)


def assert_losses(model: YOLOX, images: torch.Tensor, golden: dict, labels: torch.Tensor) -> None:
    model.head.use_l1 = golden["use_l1"]
    losses = model.train()(images, labels)
    losses["total_loss"].backward()
    for name in ("total_loss", "iou_loss", "l1_loss", "conf_loss", "cls_loss", "num_fg"):
        assert losses[name].item() == pytest.approx(golden[name], rel=1e-3, abs=1e-6), name
    for name, norm in golden["grad_norms"].items():
        grad = model.get_parameter(name).grad
        assert grad is not None
        assert grad.norm().item() == pytest.approx(norm, rel=1e-2, abs=1e-6), name


@pytest.mark.parametrize("file", ["loss_yolox-nano.json", "loss_yolox-nano_l1.json"])
def test_loss_and_gradients(file: str) -> None:
    golden = golden_json(file)
    spec = dataclasses.replace(SPECS["yolox-nano"], num_classes=golden["num_classes"])
    model = build_model(spec)
    model.load_state_dict(deterministic_state(model))
    labels = torch.tensor(golden["labels"])
    assert_losses(model, deterministic_image(len(labels), *golden["size"]), golden, labels)


@pytest.mark.parametrize("file", ["loss_real_images.json", "loss_real_images_l1.json"])
def test_loss_on_real_images(file: str) -> None:
    """Real weights and photographs: here the dynamic k of the assignment is well above 1."""
    golden = golden_json(file)
    model = load_model(shared("weights/yolox_nano_coco.pth")).model
    height, width = golden["input_size"]
    images = torch.full((len(golden["images"]), 3, height, width), 114.0)
    for index, name in enumerate(golden["images"]):
        image = cv2.imread(str(shared(f"images/{name}")))
        ratio = min(height / image.shape[0], width / image.shape[1])
        size = (int(image.shape[1] * ratio), int(image.shape[0] * ratio))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        images[index, :, : size[1], : size[0]] = torch.from_numpy(resized).permute(2, 0, 1)
    labels = torch.tensor(golden["labels_class_cx_cy_w_h_input_pixels"])
    assert_losses(model, images, golden, labels)
