"""Specs, channel tables, weight transfer, and rebuilding a model from its file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers import SPECS, shared
from yolox.models import (
    ModelSpec,
    build_model,
    channel_table,
    checkpoint_payload,
    infer_spec,
    load_model,
    resize_to_channels,
    swap_activation,
    transfer_weights,
)
from yolox.utils.checkpoint import CheckpointError, save_checkpoint

SPEC = ModelSpec(depth=0.33, width=0.125, num_classes=3, class_names=("a", "b", "c"))


# --- spec


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_survives_plain_values(name: str) -> None:
    assert ModelSpec.from_dict(SPECS[name].to_dict()) == SPECS[name]
    assert ModelSpec.from_dict(SPEC.to_dict()) == SPEC
    kinds = {type(value) for value in SPEC.to_dict().values()}
    assert kinds <= {str, int, float, bool, list}


def test_keys_of_a_newer_program_are_ignored() -> None:
    assert ModelSpec.from_dict(SPEC.to_dict() | {"attention": "none"}) == SPEC


def test_all_problems_of_a_spec_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="model spec") as caught:
        ModelSpec(
            architecture="yolov9",
            act="gelu",
            depth=0,
            num_classes=0,
            class_names=("a", "b"),
            input_size=(640, 650),
        )
    for part in ("yolov9", "gelu", "depth", "num_classes", "2 class names", "650"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"width": -1.0}, {"class_names": ("a",)}, {"input_size": (0, 640)}, {"input_size": (416, 8)}],
)
def test_a_bad_value_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="model spec"):
        dataclasses.replace(SPEC, **change)


def test_spec_is_not_inferred_from_another_models_weights() -> None:
    with pytest.raises(CheckpointError, match="not that of a YOLOX"):
        infer_spec(nn.Linear(2, 2).state_dict())


# --- building


@pytest.mark.parametrize("name", ["yolox-nano", "yolov3"])
def test_predictions_start_at_the_prior(name: str) -> None:
    model = build_model(dataclasses.replace(SPECS[name], num_classes=2))
    for conv in (*model.head.cls_preds, *model.head.obj_preds):
        assert conv.bias.tolist() == pytest.approx([-math.log(99)] * len(conv.bias))
        assert torch.sigmoid(conv.bias[0]).item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("act", "kind"),
    [("silu", nn.SiLU), ("mish", nn.Mish), ("relu", nn.ReLU), ("lrelu", nn.LeakyReLU)],
)
def test_activations_are_swapped_everywhere(act: str, kind: type[nn.Module]) -> None:
    model = build_model(dataclasses.replace(SPEC, act="relu" if act != "relu" else "silu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count = swap_activation(model, act)
    acts = [unit for name, unit in model.named_modules() if name.endswith(".act")]
    assert count == len(acts) > 50
    assert all(type(unit) is kind for unit in acts)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # As if built so.
    other = build_model(dataclasses.replace(SPEC, act=act))
    other.load_state_dict(before)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.eval()(x), other.eval()(x))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown activation 'gelu': expected one of silu"):
        swap_activation(build_model(SPEC), "gelu")


# --- weights


def test_transfer_to_another_number_of_classes() -> None:
    source = build_model(SPEC)
    model = build_model(dataclasses.replace(SPEC, num_classes=5, class_names=()))
    nn.init.constant_(model.head.cls_preds[0].bias, 7.0)
    report = transfer_weights(model, source.state_dict())
    differ = {f"head.cls_preds.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert set(report.shape_differs) == differ
    assert report.shape_differs["head.cls_preds.0.bias"] == ((3,), (5,))
    assert report.missing == ()
    assert len(report.taken) + 6 == report.total == len(model.state_dict())
    assert "6 start at random" in str(report)
    assert "head.cls_preds.0.bias (3,) → (5,)" in str(report)
    theirs = source.state_dict()
    for name, value in model.state_dict().items():
        if name not in differ:
            assert torch.equal(value, theirs[name]), name
    assert model.head.cls_preds[0].bias.tolist() == [7.0] * 5


def test_transfer_names_what_is_missing() -> None:
    state = build_model(SPEC).state_dict()
    del state["head.obj_preds.1.bias"]
    report = transfer_weights(build_model(SPEC), state)
    assert report.missing == ("head.obj_preds.1.bias",)
    assert "1 not in the file: head.obj_preds.1.bias" in str(report)


def test_transfer_from_another_model_is_refused_and_changes_nothing() -> None:
    model = build_model(SPEC)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="of another model"):
        transfer_weights(model, build_model(dataclasses.replace(SPEC, width=0.25)).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- channel table


def test_the_channel_table_is_read_off_the_convs() -> None:
    table = channel_table(build_model(SPECS["yolox-nano"]))
    assert table["backbone.backbone.stem.conv.conv"] == [12, 16, 1]
    assert table["backbone.backbone.dark2.0.dconv.conv"] == [16, 16, 16]
    assert table["head.cls_preds.2"] == [64, 80, 1]


def test_resizing_follows_the_table() -> None:
    model = build_model(SPECS["yolox-nano"])
    table = channel_table(model)
    table["backbone.backbone.stem.conv.conv"] = [12, 9, 1]
    table["backbone.backbone.dark2.0.dconv.conv"] = [9, 9, 9]
    table["backbone.backbone.dark2.0.pconv.conv"][0] = 9
    untouched = model.head.cls_preds[0]
    resize_to_channels(model, table)
    assert channel_table(model) == table
    assert model.backbone.backbone.stem.conv.bn.num_features == 9
    assert model.backbone.backbone.stem.conv.bn.eps == 1e-3
    assert model.backbone.backbone.dark2[0].dconv.conv.stride == (2, 2)
    assert model.head.cls_preds[0] is untouched
    with torch.inference_mode():
        assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 84, 85)


def test_a_table_of_another_model_is_refused() -> None:
    model = build_model(SPEC)
    table = channel_table(model)
    table["head.stems.7.conv"] = table.pop("head.stems.0.conv")
    with pytest.raises(CheckpointError, match=r"differ in 2 convolutions: head\.stems\.0"):
        resize_to_channels(model, table)


# --- files


def test_a_dense_model_is_rebuilt_from_its_file(tmp_path: Path) -> None:
    model = build_model(SPEC)
    save_checkpoint(tmp_path / "model.pth", checkpoint_payload(model, SPEC))
    loaded = load_model(tmp_path / "model.pth")
    assert loaded.spec == SPEC
    assert not loaded.is_pruned
    assert loaded.pruning == []
    assert not loaded.model.training
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model.eval()(x))


def test_a_half_precision_file_is_loaded_as_float32(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "half.pth", checkpoint_payload(build_model(SPEC).half(), SPEC))
    model = load_model(tmp_path / "half.pth").model
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_official_weights_load() -> None:
    loaded = load_model(shared("weights/yolox_nano_coco.pth"))
    assert loaded.spec == SPECS["yolox-nano"]
    with torch.inference_mode():
        assert loaded.model(torch.zeros(1, 3, 64, 64)).isfinite().all()


def corrupt(payload: dict, how: str) -> None:
    state = payload["model"]
    if how == "missing":
        del state["head.stems.0.conv.weight"]
    elif how == "extra":
        state["head.stems.9.conv.weight"] = torch.zeros(1)
    elif how == "shape":
        state["head.stems.0.conv.weight"] = torch.zeros(8, 32, 1, 1)
    elif how == "spec":
        payload["spec"]["width"] = 0.25


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "head.stems.0.conv.weight is missing"),
        ("extra", "head.stems.9.conv.weight is not expected"),
        ("shape", r"head.stems.0.conv.weight: expected .32, 32, 1, 1., got .8, 32, 1, 1."),
        ("spec", "weights do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, how: str, message: str) -> None:
    payload = checkpoint_payload(build_model(SPEC), SPEC)
    corrupt(payload, how)
    save_checkpoint(tmp_path / "odd.pth", payload)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "odd.pth")
    assert "odd.pth" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"act": "gelu"}},
        {"spec": "yolox-s"},
        {"channels": {"head.stems.0.conv": [1, 2, 1]}},
        {"channels": "all"},
        {"model": {"head.cls_preds.0.weight": 3}},
    ],
)
def test_a_file_that_contradicts_itself_is_a_checkpoint_error(tmp_path: Path, change: dict) -> None:
    payload = checkpoint_payload(build_model(SPEC), SPEC) | change
    save_checkpoint(tmp_path / "odd.pth", payload)
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "odd.pth")
