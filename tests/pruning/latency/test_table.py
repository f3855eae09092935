"""Tables of layers that a made-up runtime fills: what is measured, kept, and read between."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger
from torch import nn

from tests.pruning.helpers import SLIM_SPECS, ResNet
from yolox.models import build_model
from yolox.pruning import trace_groups
from yolox.pruning.cost import LayerSum
from yolox.pruning.latency.staircase import SWEPT_CHANNELS, measure_steps, staircase
from yolox.pruning.latency.table import (
    ConvLayer,
    LatencyTable,
    LayerTable,
    conv_layers,
    layer_tables,
    nodes,
)
from yolox.utils.conv_kind import ConvKind, Pair
from yolox.utils.model_utils import count_macs

STAMP = {"machine": "abacus", "runtime": "beads 1"}


def kind(act: str = "silu", *, depthwise: bool = False) -> ConvKind:
    return ConvKind(
        kernel=(3, 3),
        stride=(1, 1),
        padding=(1, 1),
        depthwise=depthwise,
        size=(8, 8),
        act=act,
    )


class Timer:
    """A runtime that computes in blocks, and remembers what it was asked."""

    def __init__(self, inputs: int = 1, outputs: int = 8) -> None:
        self.asked: list[tuple[ConvKind, Pair]] = []
        self._blocks = inputs, outputs

    def __call__(self, kind: ConvKind, pairs: Sequence[Pair]) -> list[float]:
        self.asked += [(kind, pair) for pair in pairs]
        return [self.milliseconds(kind, pair) for pair in pairs]

    def milliseconds(self, kind: ConvKind, pair: Pair) -> float:
        i, o = (-(-count // block) * block for count, block in zip(pair, self._blocks, strict=True))
        return 0.01 + 1e-4 * np.prod(kind.kernel) * (o if kind.depthwise else i * o)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message}")
    yield lines
    logger.remove(sink)


def test_layers_of_a_model() -> None:
    model = build_model(SLIM_SPECS["yolox-nano"])
    x = torch.zeros(1, 3, 64, 96)
    layers = conv_layers(model, x)
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert layers.keys() == convs.keys()
    macs = count_macs(model, x)
    for name, layer in layers.items():
        assert layer.macs == macs[name], name
        assert layer.kind.act == ("" if "preds" in name else "silu"), name
        assert layer.kind.depthwise == name.endswith("dconv.conv"), name
    stem = layers["backbone.backbone.stem.conv.conv"]
    assert (stem.inputs, stem.outputs, stem.kind.size) == (12, 16, (32, 48))
    assert stem.kind.label == "3x3 stride 1x1 pad 1x1 on 32x48 silu"
    assert layers["backbone.backbone.dark2.0.dconv.conv"].kind.stride == (2, 2)


def test_exact_at_nodes_linear_between_and_level_beyond() -> None:
    layer = ConvLayer(kind=kind(), inputs=16, outputs=32)
    ms = np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])
    table = LayerTable(layer, [8, 16], [8, 16, 32], ms)
    pairs = np.array([(8, 8), (16, 8), (8, 32), (16, 16), (12, 8), (8, 24), (12, 12), (2, 4)])
    # By hand: (12, 8) is halfway from 1 to 3, (8, 24) from 2 to 4, (12, 12) the mean of four.
    expected = [1, 3, 4, 5, 2, 3, 2.75, 1]
    assert table.at(pairs[:, 0], pairs[:, 1]).tolist() == pytest.approx(expected, abs=0)
    assert (table.width("in"), table.width("out")) == (16, 32)


@pytest.mark.parametrize(
    ("width", "step", "expected"),
    [
        (64, 8, [8, 16, 32, 48, 64]),
        (24, 8, [8, 16, 24]),
        (20, 8, [8, 16, 20]),
        (6, 8, [6]),
        (7, 1, [1, 2, 4, 5, 7]),
    ],
)
def test_nodes_are_multiples_of_the_step_and_the_width(
    width: int, step: int, expected: list[int]
) -> None:
    assert nodes(width, step) == expected


def test_only_what_is_missing_is_measured_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    wanted = {kind("silu"): [(8, 8), (8, 16), (8, 8)], kind("relu"): [(8, 8)]}

    def stopped(asked: ConvKind, pairs: Sequence[Pair]) -> list[float]:
        if asked.act == "relu":
            raise KeyboardInterrupt
        return Timer()(asked, pairs)

    with pytest.raises(KeyboardInterrupt):
        LatencyTable(path, STAMP).fill(wanted, stopped)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.json"]

    timer = Timer()
    table = LatencyTable(path, STAMP)
    table.fill(wanted, timer)
    assert timer.asked == [(kind("relu"), (8, 8))]
    assert table.get(kind("silu"), (8, 16)) == Timer().milliseconds(kind("silu"), (8, 16))
    LatencyTable(path, STAMP).fill(wanted, timer)
    assert len(timer.asked) == 1


def test_a_figure_above_a_wider_layers_is_measured_again(tmp_path: Path) -> None:
    noisy = iter([5.0, 2.0, 3.0])
    asked: list[Pair] = []

    def measure(_kind: ConvKind, pairs: Sequence[Pair]) -> list[float]:
        asked.extend(pairs)
        return [1.0 if pair == (8, 8) and len(asked) > 3 else next(noisy) for pair in pairs]

    table = LatencyTable(tmp_path / "table.json", STAMP)
    table.fill({kind(): [(8, 8), (8, 16), (16, 16)]}, measure)
    assert asked == [(8, 8), (8, 16), (16, 16), (8, 8)]
    assert [table.get(kind(), pair) for pair in asked[:3]] == [1.0, 2.0, 3.0]


def test_a_runtime_that_is_slower_on_fewer_channels_stays_so(tmp_path: Path) -> None:
    times = {(8, 4): 2.0, (8, 8): 1.0}
    table = LatencyTable(tmp_path / "table.json", STAMP)
    table.fill({kind(): list(times)}, lambda _kind, pairs: [times[pair] for pair in pairs])
    assert table.get(kind(), (8, 4)) == 2.0


@pytest.mark.parametrize("other", [{"machine": "sundial"}, {"runtime": "beads 2"}])
def test_another_machines_or_versions_table_is_measured_anew(
    other: dict[str, str], tmp_path: Path, log: list[str]
) -> None:
    path = tmp_path / "table.json"
    LatencyTable(path, STAMP | other).fill({kind(): [(8, 8)]}, lambda *_: [7.0])
    table = LatencyTable(path, STAMP)
    table.fill({kind(): [(8, 8)]}, lambda *_: [1.0])
    assert table.get(kind(), (8, 8)) == 1.0
    (was,) = other.items()
    (line,) = (line for line in log if "measuring again" in line)
    assert line.startswith("INFO")
    assert f"{was[0]} {was[1]}, now {STAMP[was[0]]}" in line
    assert json.loads(path.read_text())["stamp"] == STAMP


def damaged(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"\x00\xff"),
        lambda path: path.write_text(path.read_text()[:-20]),
        lambda path: path.write_text("[]"),
        lambda path: damaged(path, lambda c: c.pop("ms")),
        lambda path: damaged(path, lambda c: c.update(format="recipe")),
        lambda path: damaged(path, lambda c: c["ms"][kind().label].update({"8x8": -1})),
        lambda path: damaged(path, lambda c: c["ms"][kind().label].update({"8x8": "fast"})),
        lambda path: damaged(path, lambda c: c["ms"][kind().label].update({"8x8": float("nan")})),
        lambda path: damaged(path, lambda c: c["ms"][kind().label].update({"8 by 8": 1.0})),
    ],
)
def test_a_damaged_table_is_measured_anew(
    damage: Callable[[Path], object], tmp_path: Path, log: list[str]
) -> None:
    path = tmp_path / "table.json"
    LatencyTable(path, STAMP).fill({kind(): [(8, 8)]}, lambda *_: [7.0])
    damage(path)
    table = LatencyTable(path, STAMP)
    table.fill({kind(): [(8, 8)]}, lambda *_: [1.0])
    assert table.get(kind(), (8, 8)) == 1.0
    assert [line for line in log if line.startswith("WARNING") and str(path) in line]


@pytest.mark.parametrize("name", ["yolox-nano", "ResNet"])
def test_a_model_costs_what_its_layers_take(name: str, tmp_path: Path) -> None:
    model = build_model(SLIM_SPECS[name]) if name in SLIM_SPECS else ResNet()
    x = torch.rand(1, 3, 64, 64)
    groups = trace_groups(model, x)
    layers = conv_layers(model, x)
    timer = Timer(outputs=1)
    table = LatencyTable(tmp_path / "table.json", STAMP)
    tables = layer_tables(table, timer, layers, groups, 4)
    costs = LayerSum(groups, tables, constant=1.0)
    whole = [group.size for group in groups]
    expected = 1.0
    for layer in layers.values():
        expected += timer.milliseconds(layer.kind, (layer.inputs, layer.outputs))
    assert costs.at(whole) == pytest.approx(expected)
    # Without blocks, what lies between nodes is on the plane through them.
    half = [max(group.size // 2, 1) for group in groups]
    channels: dict[tuple[str, str], int] = {}
    for group, kept in zip(groups, half, strict=True):
        for member in group.members:
            lost = (group.size - kept) * member.index.shape[1]
            channels[member.name, member.axis] = channels.get((member.name, member.axis), 0) + lost
    expected = 1.0
    for layer_name, layer in layers.items():
        i = layer.inputs - channels.get((layer_name, "in"), 0)
        o = layer.outputs - channels.get((layer_name, "out"), 0)
        expected += timer.milliseconds(layer.kind, (i, o))
    assert costs.at(half) == pytest.approx(expected, rel=1e-6)
    assert len(timer.asked) == len(set(timer.asked))


def times(function: Callable[[int], float]) -> dict[int, float]:
    return {count: function(count) for count in SWEPT_CHANNELS}


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_the_step_is_the_block_that_a_runtime_computes_in(block: int, constant: float) -> None:
    assert staircase(times(lambda c: constant + -(-c // block) * block)) == block


def test_odd_counts_that_are_slow_on_their_own_do_not_widen_the_step() -> None:
    """Linear in multiples of 4, all else slower than the next multiple."""
    assert staircase(times(lambda c: -(-c // 4) * 4 * (1.0 if c % 4 == 0 else 1.3))) == 4


def test_a_little_noise_does_not_change_the_step() -> None:
    rng = np.random.default_rng(0)
    for block in (1, 4, 8, 16):
        noisy = times(lambda c, block=block: -(-c // block) * block * rng.uniform(1, 1.01))
        assert staircase(noisy) == block


def test_steps_of_the_layer_that_does_most_of_the_work(tmp_path: Path) -> None:
    light = ConvLayer(kind=kind("relu"), inputs=8, outputs=8)
    heavy = ConvLayer(kind=kind("silu"), inputs=64, outputs=64)
    depthwise = ConvLayer(kind=kind("mish", depthwise=True), inputs=10**6, outputs=10**6)
    timer = Timer(inputs=4, outputs=16)
    table = LatencyTable(tmp_path / "table.json", STAMP)
    found = measure_steps(table, timer, [light, heavy, depthwise])
    assert found == (heavy.kind, 4, 16)
    pairs = {pair for _, pair in timer.asked}
    assert pairs == set(
        itertools.chain(((n, 64) for n in SWEPT_CHANNELS), ((64, n) for n in SWEPT_CHANNELS))
    )
