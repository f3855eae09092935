"""Sensitivity against cases worked out by hand, and its file against what can happen to it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tests.pruning.helpers import (
    ResNet,
    assert_untouched,
    bare,
    enliven,
    group_of,
    member_of,
    plan_of,
    snapshot,
)
from yolox.pruning import Group, Member, PruningError, apply_plan, trace_groups
from yolox.pruning.sensitivity import (
    SensitivityLog,
    SensitivityPoint,
    SensitivityResult,
    mark_parts,
    measure_sensitivity,
    pending,
    prune_ratios,
    slots_to_remove,
    suggest_ratios,
)


def point(layer: str, ratio: float, value: float, size: int = 10) -> SensitivityPoint:
    return SensitivityPoint(
        layer=layer, coupled=1, size=size, ratio=ratio, removed=round(size * ratio), value=value
    )


def three_layers() -> nn.Sequential:
    """Channels 0 and 2 of the first layer are read with weights 0: it can lose half for nothing."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )
    enliven(model).eval()
    with torch.no_grad():
        model[2].weight[:, [0, 2]] = 0
    return model


X = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def reads(model: nn.Module, groups: list[Group]) -> dict[str, Tensor]:
    """A score that knows: how much is read of each slot."""
    found = {}
    for group in groups:
        readers = [m for m in group.members if m.axis == "in"]
        weights = [model.get_submodule(m.name).weight.detach() for m in readers]  # type: ignore
        found[group.name] = sum(w.abs().transpose(0, 1).flatten(1).sum(1) for w in weights)  # type: ignore
    return found


def test_a_layer_pays_for_nothing_until_live_channels_go() -> None:
    model = three_layers()
    before = snapshot(model)
    groups = trace_groups(model, X)
    with torch.no_grad():
        whole = model(X)

    def distance(masked: nn.Module) -> float:
        with torch.no_grad():
            return float((masked(X) - whole).abs().max())

    todo = pending(groups, (0.75, 0.25, 0.5, 0.25))
    points = list(measure_sensitivity(model, groups, todo, reads(model, groups), distance))
    assert [(p.layer, p.size, p.ratio, p.removed) for p in points] == [
        ("0", 4, 0.25, 1),
        ("0", 4, 0.5, 2),
        ("0", 4, 0.75, 3),
        ("2", 6, 0.25, 2),
        ("2", 6, 0.5, 3),
        ("2", 6, 0.75, 4),
    ]
    values = [p.value for p in points]
    assert values[:2] == [0, 0]
    assert min(values[2:]) > 1e-3
    assert suggest_ratios(points, 0.0, 0.0, False) == {"0": 0.5, "2": 0.0}
    assert_untouched(model, before)


def test_what_is_measured_is_the_cut_model_without_the_least_important_slots() -> None:
    model = enliven(ResNet()).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    groups = trace_groups(model, x[:1])
    scores = reads(model, groups)

    @torch.no_grad()
    def value(some: nn.Module) -> float:
        return float(some(x).square().mean())

    stem = group_of(groups, "stem.0")
    (found,) = measure_sensitivity(model, groups, [(stem, 0.4)], scores, value)
    lowest = scores[stem.name].argsort()[:3].tolist()
    cut = apply_plan(model, groups, plan_of(groups, {stem.name: tuple(sorted(lowest))}))
    assert found.value == pytest.approx(value(cut), rel=1e-5)
    assert (found.coupled, found.removed) == (2, 3)  # the stem and the residual add's other side


def test_points_come_one_by_one() -> None:
    model = three_layers()
    groups = trace_groups(model, X)
    calls: list[nn.Module] = []

    def measure(masked: nn.Module) -> float:
        calls.append(masked)
        return 0.0

    todo = pending(groups, (0.5,))
    points = measure_sensitivity(model, groups, todo, reads(model, groups), measure)
    assert not calls
    next(points)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("size", "ratio", "count"),
    [(10, 0.3, 3), (8, 0.3, 2), (3, 0.1, 1), (3, 0.9, 2), (2, 0.9, 1), (64, 0.999, 63)],
)
def test_slots_to_remove(size: int, ratio: float, count: int) -> None:
    assert slots_to_remove(size, ratio) == count


def test_pending_leaves_out_what_is_known_and_what_cannot_be_pruned() -> None:
    one, two = Group(name="one", size=1, members=()), Group(name="two", size=2, members=())
    assert pending([one, two], [0.5, 0.1], known={("two", 0.1), ("one", 0.5)}) == [(two, 0.5)]
    for ratio in (0, 1, -0.5, float("nan")):
        with pytest.raises(PruningError, match="between 0 and 1"):
            pending([two], [0.5, ratio])


def test_suggestions_by_hand() -> None:
    points = [
        point("a", 0.7, 0.38),
        point("a", 0.1, 0.40),
        point("a", 0.3, 0.39),
        # Better at 0.5 than at 0.3 is chance: not to be relied on.
        point("b", 0.1, 0.41),
        point("b", 0.3, 0.35),
        point("b", 0.5, 0.40),
        point("c", 0.1, 0.2),
        point("c", 0.3, 0.1),
        point("d", 0.1, 0.4),
        point("d", 0.3, float("nan")),
    ]
    assert suggest_ratios(points, 0.4, 0.01, True) == {"a": 0.3, "b": 0.1, "c": 0.0, "d": 0.1}
    assert suggest_ratios(points, 0.4, 0.0, True) == {"a": 0.1, "b": 0.1, "c": 0.0, "d": 0.1}
    rising = [point("a", 0.1, 5.0), point("a", 0.3, 5.1), point("a", 0.5, 5.3)]
    assert suggest_ratios(rising, 5.0, 0.1, False) == {"a": 0.3}
    assert suggest_ratios([], 5.0, 0.1, False) == {}


def test_prune_ratios_are_names_that_a_config_takes() -> None:
    model = three_layers()
    groups = trace_groups(model, X)
    assert prune_ratios(groups, {"0": 0.5, "2": 0.0}) == {"0": 0.5}
    assert prune_ratios(groups, {}) == {}
    assert bare(mode="layer", layer_sparsity=prune_ratios(groups, {"2": 0.3}))


def test_a_layer_of_two_groups_gets_the_lower_ratio() -> None:
    first, second = (
        member_of(group_of(trace_groups(three_layers(), X), name), name, "out") for name in "02"
    )

    def group(name: str, *members: Member) -> Group:
        return Group(name=name, size=2, members=members)

    halves = [group("0", first), group("0#2", first)]
    assert prune_ratios(halves, {"0": 0.5, "0#2": 0.3}) == {"0": 0.3}
    assert prune_ratios(halves, {"0": 0.5, "0#2": 0.0}) == {}
    shared = [group("0", first, second), group("2", second)]
    assert prune_ratios(shared, {"0": 0.1, "2": 0.5}) == {"0": 0.1, "2": 0.1}
    assert prune_ratios(shared, {"2": 0.5}) == {}


def result(**changes: object) -> SensitivityResult:
    points = (
        point("a", 0.1, 0.39),
        point("a", 0.5, 0.1),
        point("b", 0.1, 0.40),
        point("b", 0.5, 0.41),
        point("c", 0.5, 0.3),
    )
    fields = {"points": points, "base": 0.4, "metric": "AP50-95", "higher_is_better": True}
    return SensitivityResult(**(fields | changes))  # type: ignore[arg-type]


def test_the_most_sensitive_layer_comes_first() -> None:
    assert list(result().costs()) == ["a", "c", "b"]
    assert result().costs()["a"] == pytest.approx(0.155)
    assert list(result(higher_is_better=False).costs()) == ["b", "c", "a"]
    table = result().table({"b": 0.5})
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["layer"] == ["a", "c", "b"]
    assert columns["0.1"] == ["-0.010", "", "0.000"]
    assert columns["suggested"] == ["–", "–", "0.5"]


def test_the_picture_grows_with_the_layers(tmp_path: Path) -> None:
    heights = []
    for layers in (2, 80):
        points = tuple(
            point(f"backbone.dark{n}.conv", ratio, n + ratio) for n in range(layers) for ratio in
            (0.1, 0.5)
        )  # fmt: skip
        path = tmp_path / f"{layers}.png"
        odd = point("head", 0.1, float("nan")), point("head.other", 0.1, float("inf"))
        result(points=(*points, *odd), higher_is_better=False).save_picture(path)
        heights.append(cv2.imread(str(path)).shape[0])
    assert heights[1] - heights[0] > 78 * 16  # pixels for a line of text each


def test_a_value_that_is_no_number_costs_most_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = SensitivityLog(path, {"checkpoint": "abc"})
    log.set_base(0.4)
    for layer, value in (("a", math.inf), ("b", math.nan), ("c", 0.5)):
        log.add(point(layer, 0.5, value))
    read = SensitivityLog(path, {"checkpoint": "abc"})
    assert read.known() == log.known()
    assert [math.isfinite(p.value) for p in read.points] == [False, False, True]
    for points in (log.points, read.points):
        found = result(points=tuple(points), higher_is_better=False)
        assert list(found.costs()) == ["a", "b", "c"]
        assert list(found.table({}).columns[2].cells) == ["∞", "∞", "+0.100"]
        assert suggest_ratios(points, 0.4, 0.2, higher_is_better=False)["c"] == 0.5


def test_the_picture_names_the_parts_of_the_network() -> None:
    axes = Figure().add_subplot()
    layers = ["backbone.backbone.dark2.0.conv", "backbone.backbone.dark2.1.conv1.conv"]
    mark_parts(axes, [*layers, "backbone.C3_p4.conv1.conv", "head.stems.0.conv"])
    assert [text.get_text() for text in axes.texts] == ["dark2", "C3_p4", "stems"]
    assert [text.get_position()[1] for text in axes.texts] == [0.5, 2, 3]
    assert [line.get_ydata()[0] for line in axes.lines] == [1.5, 2.5]


def test_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    header = {"checkpoint": "abc", "test_size": (64, 64)}
    log = SensitivityLog(path, header)
    log.set_base(0.1 + 0.2)
    log.add(point("a", 0.1, 1 / 3))
    whole = path.read_bytes()
    log.add(point("a", 0.3, 0.2))
    assert len(path.read_text().splitlines()) == 4

    for end in (len(whole) + 1, len(whole) + 30, path.stat().st_size - 1):
        path.write_bytes((whole + b'{"layer": "a", "coupled": 1, "size": 10, "ratio": 0.3}')[:end])
        again = SensitivityLog(path, header)
        assert (again.base, again.points) == (0.1 + 0.2, [point("a", 0.1, 1 / 3)])
        assert again.known() == {("a", 0.1)}
        assert path.read_bytes() == whole

    path.write_bytes(whole[:20])  # not even the header
    assert SensitivityLog(path, header).base is None
    assert path.read_bytes() == whole.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a text\n", "no sensitivity log"),
        (b"[1]\n", "no sensitivity log"),
        (b'{"format": "yolox-sensitivity", "version": 1, "a": 2}\n', "a 2 there, 1 now"),
        (b'{"format": "yolox-sensitivity", "version": 1}\n', "a None there, 1 now"),
        (b'{"format": "yolox-sensitivity", "version": 1, "a": 1}\n{"x": 1}\n', "line 2"),
        (b'{"format": "yolox-sensitivity", "version": 1, "a": 1}\n{"ba\n{}\n', "line 2"),
    ],
)
def test_log_of_something_else_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(PruningError, match=words):
        SensitivityLog(path, {"a": 1})
    assert path.read_bytes() == content


def test_log_in_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(PruningError, match="choose another `folder`"):
        SensitivityLog(tmp_path / "taken" / "log.jsonl", {})


def test_log_lines_are_plain_json(tmp_path: Path) -> None:
    log = SensitivityLog(tmp_path / "log.jsonl", {"seed": 3})
    log.add(point("a", 0.3, 0.25))
    header, line = map(json.loads, log.path.read_text().splitlines())
    assert header == {"format": "yolox-sensitivity", "version": 1, "seed": 3}
    assert line == {
        "layer": "a", "coupled": 1, "size": 10, "ratio": 0.3, "removed": 3, "value": 0.25,
    }  # fmt: skip
