"""Diagrams: known values at known places."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from yolox.report import ClassRow, Curve, Histogram, LayerBar, ScaleHistograms
from yolox.report.charts import (
    Point,
    draw_class,
    draw_curve,
    draw_scales,
    draw_tradeoff,
    pareto_front,
)
from yolox.report.network import COLUMN, draw_network
from yolox.report.svg import Frame, element, rising_ticks, text

_NAMESPACE = "{http://www.w3.org/2000/svg}"


def _find(svg: str, tag: str, class_: str) -> list[ET.Element]:
    root = ET.fromstring(svg)
    return [found for found in root.iter(_NAMESPACE + tag) if found.get("class") == class_]


def _points(line: ET.Element) -> list[tuple[float, ...]]:
    return [tuple(map(float, pair.split(","))) for pair in (line.get("points") or "").split()]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 330, 5, [0, 100, 200, 300]),
        (0.31, 0.62, 5, [0.4, 0.5, 0.6]),
        (0, 12, 5, [0, 5, 10]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert rising_ticks(low, high, most) == pytest.approx(expected)


def test_places_on_linear_and_logarithmic_axes() -> None:
    frame = Frame(left=10, top=20, right=110, bottom=220, x=(0, 4), y=(1, 100), log_y=True)
    assert frame.at_x(1) == pytest.approx(35)
    assert frame.at_y(10) == pytest.approx(120)
    assert frame.at_y(0) == 220
    linear = Frame(left=10, top=20, right=110, bottom=220, x=(0, 4), y=(0, 1))
    assert linear.at_y(0.25) == pytest.approx(170)


def test_markup_is_escaped() -> None:
    assert text("a<b&\x01", 1, 2.345, text_anchor="end") == (
        '<text x="1" y="2.35" text-anchor="end">a&lt;b&amp;\\x01</text>'
    ).replace("2.35", f"{round(2.345, 2):g}")
    assert element("a", title='"<') == "<a title='\"&lt;'/>"


def test_pareto_front_holds_what_nothing_beats() -> None:
    values = [(4, 0.5), (1, 0.3), (2, 0.3), (3, 0.6), (1, 0.3), (2, 0.4)]
    points = [Point(label=str(i), role="", cost=c, ap=a) for i, (c, a) in enumerate(values)]
    assert pareto_front(points) == [1, 5, 3]


def test_tradeoff_puts_models_where_they_belong() -> None:
    points = [
        Point(label="small", role="after", cost=100.0, ap=0.4),
        Point(label="large", role="before", cost=200.0, ap=0.5),
        Point(label="poor", role="", cost=150.0, ap=0.3),
    ]
    svg = draw_tradeoff(points, cost="MACs", unit="M")
    small, large, poor = (
        _find(svg, "circle", f"point {role}".strip())[0] for role in ("after", "before", "")
    )
    xs = [float(p.get("cx", "nan")) for p in (small, poor, large)]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)
    # The axis begins at nothing, so that half of the cost is half of the way.
    assert xs[2] - 50 == pytest.approx(2 * (xs[0] - 50), abs=0.02)
    ys = [float(p.get("cy", "nan")) for p in (large, small, poor)]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.02)
    assert ys[0] < ys[1]
    (front,) = _find(svg, "polyline", "front")
    steps = _points(front)
    assert steps[0] == pytest.approx((xs[0], ys[1]), abs=0.02)
    assert steps[1] == pytest.approx((xs[2], ys[1]), abs=0.02)
    assert steps[2] == pytest.approx((xs[2], ys[0]), abs=0.02)
    assert "large 200 M, 0.500" in ET.fromstring(svg)[1].text


def test_labels_of_near_points_do_not_overlap() -> None:
    points = [Point(label=f"model {i}", role="", cost=10 + 0.2 * i, ap=0.5) for i in range(3)]
    svg = draw_tradeoff(points, cost="latency")
    boxes = []
    for label in _find(svg, "text", "name"):
        width = 0.6 * 12.5 * len("model 0")
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[label.get("text-anchor", "start")]
        x, y = float(label.get("x", "nan")) - shift * width, float(label.get("y", "nan"))
        boxes.append((x, y - 10, x + width, y))
    assert len(boxes) == 3
    for i, a in enumerate(boxes):
        assert a[2] < 462
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("ap", [0.0, 0.5, 1.0])
def test_models_of_equal_ap_can_be_drawn(ap: float) -> None:
    points = [Point(label=str(i), role="", cost=0.0, ap=ap) for i in range(2)]
    ET.fromstring(draw_tradeoff(points, cost="MACs"))


def test_curve_goes_through_its_values() -> None:
    curve = Curve(name="a", objects=2, before=(1.0, 0.5, 0.0), after=(1.0, 1.0, 1.0, 1.0, 0.0))
    svg = draw_curve(curve)
    before, after = (_points(_find(svg, "polyline", f"line {r}")[0]) for r in ("before", "after"))
    assert before == [(42, 42), (180, 137), (318, 232)]
    assert after == [(42, 42), (111, 42), (180, 42), (249, 42), (318, 232)]
    assert "before 0.500, after 0.800" in ET.fromstring(svg)[1].text
    alone = draw_curve(Curve(name="a", objects=2, before=(1.0, 0.0)))
    assert not _find(alone, "polyline", "line after")


def test_class_is_a_way_from_before_to_after() -> None:
    svg = draw_class(ClassRow(name="a", objects=1, before=0.25, after=0.75))
    (before,), (after,) = (_find(svg, "circle", f"point {role}") for role in ("before", "after"))
    assert (before.get("cx"), after.get("cx")) == ("33", "87")
    nothing = draw_class(ClassRow(name="a", objects=0, before=None, after=None))
    assert not _find(nothing, "circle", "point before")


def test_bars_are_as_wide_as_their_channels() -> None:
    layers = [
        LayerBar(name="a", part="backbone", stage="stem", before=100, after=25),
        LayerBar(name="b", part="backbone", stage="dark2", before=50, after=50),
        LayerBar(name="c", part="head", stage="stride 8", before=100, after=100),
        LayerBar(name="d", part="backbone", stage="stem", before=100, after=75),
    ]
    backbone, head = draw_network(layers)
    assert (backbone.name, backbone.columns, backbone.kept) == ("backbone", 2, "60\u202f%")
    assert (head.name, head.columns, head.kept) == ("head", 1, "100\u202f%")

    def bars(svg: str, class_: str) -> list[tuple[float, ...]]:
        """Left, top and width."""
        found = _find(svg, "rect", class_)
        return [tuple(float(bar.get(key, "nan")) for key in ("x", "y", "width")) for bar in found]

    kept, whole = bars(backbone.svg, "kept"), bars(backbone.svg, "whole")
    full = bars(head.svg, "kept")[0][2]  # the same scale in every part
    assert [width / full for _, _, width in kept] == pytest.approx([0.25, 0.75, 0.5])
    assert [width / full for _, _, width in whole] == pytest.approx([1, 1, 0.5])
    # Below each other in a stage, beside each other otherwise, all centred.
    assert kept[0][1] == kept[2][1] < kept[1][1]
    middles = [x + width / 2 for x, _, width in (*kept, *whole)]
    assert middles == pytest.approx(2 * [COLUMN / 2, COLUMN / 2, 1.5 * COLUMN])
    words = " ".join(ET.fromstring(backbone.svg).itertext())
    assert "a: 25 of 100 channels (25\u202f%)" in words
    assert "stem: 50\u202f% kept; dark2: 100\u202f% kept" in words


def test_histograms_share_their_bins() -> None:
    scales = ScaleHistograms(
        edges=(0.0, 1.0, 2.0),
        models=(
            Histogram(label="old", counts=(100, 10), median=0.4),
            Histogram(label="new", counts=(0, 1), median=1.5),
        ),
    )
    svg = draw_scales(scales)
    old, new = (_points(_find(svg, "polyline", f"line area {r}")[0]) for r in ("before", "after"))
    assert [x for x, _ in old] == [x for x, _ in new] == [50, 50, 249, 249, 448, 448]
    assert old[0][1] == old[-1][1] == new[1][1] == 270
    # A power of ten is as long everywhere.
    assert old[3][1] - old[1][1] == pytest.approx(new[3][1] - old[3][1], abs=0.02)
    assert "old: 110\u202fchannels, median 0.4" in ET.fromstring(svg)[1].text
