"""Rounding, the error it makes, the ranking of layers by it, and the search for the fewest."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.helpers import SPECS
from tests.pruning.helpers import enliven
from yolox.export.quantize_layers import (
    detection_error,
    find_fewest,
    rank_layers,
    round_activation,
    round_weight,
    rounded,
)
from yolox.models import build_model


def test_weights_are_rounded_channel_by_channel() -> None:
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([1.0, 100, 0.01, 0])[:, None, None, None]
    got = round_weight(weight).numpy().reshape(4, -1)
    for row, values in zip(weight.numpy().reshape(4, -1), got, strict=True):
        step = np.abs(row).max() / 127
        assert np.abs(values - row).max() <= step / 2 * 1.001
        assert len(np.unique(values)) <= 255
        assert np.abs(values).max() == pytest.approx(np.abs(row).max())


@pytest.mark.parametrize(("low", "high"), [(-0.3, 8), (0, 255), (2, 3), (-5, -1), (0, 0)])
def test_activations_are_rounded_to_256_levels_with_a_zero(low: float, high: float) -> None:
    x = torch.rand(1, 2, 50, 50) * (high - low) + low
    x[0, 0, 0, :2] = torch.tensor([low, high])
    got = round_activation(x)
    step = (max(high, 0) - min(low, 0)) / 255
    assert float((got - x).abs().max()) <= step / 2 * 1.01 + 1e-6
    assert len(got.unique()) <= 256
    assert float(round_activation(torch.cat((x, torch.zeros_like(x))))[1].abs().max()) == 0


def test_a_rounded_convolution_is_as_before_afterwards() -> None:
    conv = nn.Conv2d(3, 5, 3)
    x = torch.randn(1, 3, 20, 20)
    with torch.no_grad():
        before, weight = conv(x), conv.weight.clone()
        with rounded(conv):
            inside = conv(x)
        expected = nn.functional.conv2d(round_activation(x), round_weight(weight), conv.bias)
        torch.testing.assert_close(inside, round_activation(expected))
        assert torch.equal(conv(x), before)
    assert torch.equal(conv.weight, weight)


def test_the_error_counts_scores_and_boxes_of_the_best_anchors() -> None:
    base = torch.zeros(1, 300, 7)
    base[..., :4] = torch.tensor([50.0, 50, 20, 20])
    base[0, :100, 4:6] = torch.tensor([0.9, 1])
    assert detection_error(base, base) == 0
    background = base.clone()
    background[0, 100:, :4] = torch.tensor([1.0, 1, 500, 500])
    assert detection_error(base, background) == 0

    half = base.clone()
    half[0, :50, 2] = 10  # half the box: IoU 0.5
    assert detection_error(base, half) == pytest.approx(0.25)
    assert detection_error(half, base) == pytest.approx(0.25)
    fainter = base.clone()
    fainter[0, :100, 4] = 0.6
    assert detection_error(base, fainter) == pytest.approx(0.3)
    risen = base.clone()  # detections where there were none count too
    risen[0, 100:200, 4:6] = torch.tensor([1.0, 1])
    assert detection_error(base, risen) == pytest.approx(1)
    assert detection_error(base, base * torch.nan) == 2


def test_the_layer_that_rounding_ruins_is_ranked_first() -> None:
    spec = dataclasses.replace(SPECS["yolox-s"], width=0.125, num_classes=2, input_size=(64, 64))
    model: Any = enliven(build_model(spec)).eval()
    name = "backbone.C3_p3.conv3"
    unit = model.get_submodule(name)
    # One input is huge, the weights that read it are 0: on its grid all the others become 0.
    before = model.get_submodule("backbone.C3_p3.m.0.conv2")
    with torch.no_grad():
        unit.conv.weight[:, 0] = 0
        before.bn.weight[0], before.bn.bias[0] = 0, 1e5
    state = {key: value.clone() for key, value in model.state_dict().items()}
    layers = ("backbone.backbone.stem.conv", f"{name}.conv", "head.stems.2.conv")
    images = 255 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ranked = rank_layers(model, layers, images)
    assert sorted(layer for layer, _ in ranked) == sorted(layers)
    assert ranked[0][0] == f"{name}.conv"
    assert ranked[0][1] > 2 * ranked[1][1]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@given(most=st.integers(0, 200), needed=st.integers(0, 250))
def test_the_fewest_layers_that_will_do(most: int, needed: int) -> None:
    asked: list[int] = []

    def measure(kept: int) -> float:
        asked.append(kept)
        return min(kept / 1000, needed / 1000)

    found = find_fewest(measure, most, needed / 1000)
    assert [attempt.kept for attempt in found.attempts] == asked
    assert len(set(asked)) == len(asked)
    assert max(asked) <= most
    assert found.met == (needed <= most)
    assert found.chosen.kept == min(needed, most)
    assert len(asked) <= 2 * math.log2(most + 2) + 2


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_whatever_the_measure_does_what_is_chosen_will_do(
    values: list[float], floor: float
) -> None:
    found = find_fewest(lambda kept: values[kept], len(values) - 1, floor)
    assert found.met == (found.chosen.value >= floor)
    assert found.chosen in found.attempts
    assert values[found.chosen.kept] == found.chosen.value
    if not found.met:
        assert found.chosen.value == max(attempt.value for attempt in found.attempts)
