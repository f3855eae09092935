"""Detectors of Ultralytics pruned: how much can go, budgets, what is left of them."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ultralytics.helpers import (
    CHEAP,
    SIDE,
    labelled_batch,
    make_detector,
    raw,
    shapes,
)
from yolox import ultralytics as adapter
from yolox.pruning import PruneConfig, PruningError, apply_plan, mask_plan
from yolox.utils.model_utils import count_macs, count_params

SIZE = (SIDE, SIDE)
# Share of a model's convolution outputs that can go.
MODELS = {"yolov5n": 0.9, "yolov8n": 0.9, "yolo11n": 0.75, "yolo26n": 0.75}


@lru_cache
def halved(name: str) -> Any:
    """A model, its tracing, and what is left of it at half of the MACs. Not to be changed."""
    from yolox.ultralytics.detector import Detector, detector_scorer

    model = make_detector(name)
    detector = Detector(model)
    config = PruneConfig(target="macs=0.5", **CHEAP)
    plan = detector.plan(config, detector_scorer(config, None), SIZE)
    return model, detector, detector.cut(plan, config, SIZE)


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_their_sense_within_both_budgets(name: str) -> None:
    from yolox.ultralytics.detector import detector_scorer

    model, detector, result = halved(name)
    assert shapes(model) == shapes(make_detector(name))
    total = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    prunable = sum(group.size * group.channels_per_slot for group in detector.groups)
    assert prunable / total > MODELS[name]
    macs = [count_macs(m, torch.zeros(1, 3, *SIZE))[""] for m in (result.model, model)]
    assert macs[0] / macs[1] == pytest.approx(0.5, abs=0.01)
    config = PruneConfig(target="params=0.4", **CHEAP)
    plan = detector.plan(config, detector_scorer(config, None), SIZE)
    small = apply_plan(detector.model, detector.groups, plan)
    assert count_params(small) / count_params(model) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_pruned_models_are_the_masked_ones_and_can_be_trained(name: str) -> None:
    _, detector, result = halved(name)
    images = torch.rand(2, 3, *SIZE)
    masked = mask_plan(detector.model, detector.groups, result.plan)
    for key, value in raw(masked, images).items():
        assert raw(result.model, images)[key] == pytest.approx(value, rel=1e-3, abs=1e-3)
    small = copy.deepcopy(result.model).train()
    loss = adapter.detection_loss(small, labelled_batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for n, p in small.named_parameters() if "dfl" not in n)


def test_blocks_split_for_export_where_they_were_cut(pruned: Path) -> None:
    from ultralytics.nn.modules.block import C2f

    model = adapter.read_detector(pruned)
    blocks = [block for block in model.modules() if isinstance(block, C2f)]
    assert any(block.c != other.c for block, other in zip(blocks, _blocks(), strict=True))
    for block in blocks:
        x = torch.rand(1, block.cv1.conv.in_channels, 4, 4)
        assert torch.equal(block(x), block.forward_split(x))


def _blocks() -> list[nn.Module]:
    from ultralytics.nn.modules.block import C2f

    return [block for block in make_detector().modules() if isinstance(block, C2f)]


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "yolov8n"), ("onnx", "yolo26n"), ("openvino", "yolov8n")]
)
def test_exported_files_compute_what_pytorch_does(form: str, name: str, tmp_path: Path) -> None:
    from ultralytics import YOLO

    from yolox.ultralytics.clock import export

    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime" if form == "onnx" else "openvino")
    path = tmp_path / "pruned.pt"
    adapter.save_detector(halved(name)[2].model, path)
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, *SIZE)).astype(np.float32)
    written = export(path, form, SIZE)
    if form == "onnx":
        session = runtime.InferenceSession(written, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: image})
    else:
        (file,) = written.glob("*.xml")
        precise = {"INFERENCE_PRECISION_HINT": "f32"}
        found = runtime.Core().compile_model(file, "CPU", precise)([image])[0]
    model = YOLO(path).model.eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(image))[0].numpy()
    if name == "yolo26n":  # rows by falling score: ties may come in any order
        found, wanted = (np.sort(part[0, :, 4]) for part in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)


def test_pruning_again_adds_a_plan(pruned: Path, tmp_path: Path) -> None:
    from yolox.ultralytics.files import plans_of

    once = adapter.read_detector(pruned)
    twice = adapter.prune_detector(once, PruneConfig(target="macs=0.6", **CHEAP), size=SIZE).model
    adapter.save_detector(twice, tmp_path / "twice.pt")
    read = adapter.read_detector(tmp_path / "twice.pt")
    first, second = plans_of(read)
    assert first.to_dict() == plans_of(once)[0].to_dict()
    assert second.removed
    assert count_params(read) < count_params(once)
    assert read.yaml["whole"] == once.yaml["whole"]


def test_criteria_read_their_loss_and_layers_are_refitted(whole: Path, data: Path) -> None:
    from yolox.ultralytics.data import calibrate
    from yolox.ultralytics.detector import Detector

    model = adapter.read_detector(whole)
    config = PruneConfig(
        target="macs=0.5", rounds=2, reconstruct=4, held_back=2, importance="fisher"
    )
    config, images = calibrate(model, str(data), config, 4, SIDE)
    assert len(images) == 6
    assert all(len(batch["cls"]) == 2 and batch["img"].shape[2:] == SIZE for batch in images)
    result = adapter.prune_detector(
        model, config, size=SIZE, batches=images, images=images.images()
    )
    bare = PruneConfig(target="macs=0.5", **CHEAP)
    unfitted = adapter.prune_detector(model, bare, size=SIZE, plan=result.plan)
    seen = images.images()
    wanted = raw(model, seen)["scores"]
    fitted, bare_one = (
        (raw(part.model, seen)["scores"] - wanted).norm() for part in (result, unfitted)
    )
    assert fitted < 0.8 * bare_one
    assert np.isfinite(images.mean_loss(result.model))
    first, _ = images.split(config)
    judged = Detector(model).cut(result.plan, config, SIZE, first.images(), images.labelled(config))
    assert judged.judgement is not None
    assert judged.judgement.kept <= judged.judgement.bare


def test_what_attention_holds_is_told_where_a_target_is_out_of_reach() -> None:
    from yolox.ultralytics.detector import detector_scorer

    _, detector, _ = halved("yolo11n")
    config = PruneConfig(target="params=0.01", **CHEAP)
    with pytest.raises(PruningError, match=r"attention keeps its channels: model\.10\.m\.0\.attn"):
        detector.plan(config, detector_scorer(config, None), SIZE)


class OwnBlock(nn.Module):
    """A person's own, in place of one of theirs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.i, self.f, self.type, self.np = block.i, block.f, "OwnBlock", 0


class FixedOrder(OwnBlock):
    """Takes its channels by numbers that stand in its code."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)[:, [*range(8, 16), *range(8)]]
        return out


class Elsewhere(OwnBlock):
    """Computes where it cannot be followed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.block(x).numpy())


def test_what_goes_by_numbers_in_ones_own_code_stays() -> None:
    model = make_detector()
    model.model[2] = FixedOrder(model.model[2])
    config = PruneConfig(target="macs=0.5", **CHEAP)
    small = adapter.prune_detector(model, config, size=SIZE).model
    assert small.model[2].block.cv2.conv.out_channels == 16
    assert small.model[4].cv2.conv.out_channels < model.model[4].cv2.conv.out_channels


def test_a_block_of_ones_own_that_cannot_be_followed_is_named() -> None:
    model = make_detector()
    model.model[2] = Elsewhere(model.model[2])
    with pytest.raises(PruningError, match=r"model\.2 \(Elsewhere\)"):
        adapter.prune_detector(model, PruneConfig(target="macs=0.5", **CHEAP), size=SIZE)
