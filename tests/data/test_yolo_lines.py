"""What lines of YOLO label files are taken for, over a whole split and as the data.yaml says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.helpers import write_image
from yolox.data import DataError, RecordSet, YOLODataset, read_yolo
from yolox.data.datasets.yolo_lines import Declared, Lines
from yolox.data.doctor import check

Draw = Callable[[np.random.Generator], tuple[list[float], tuple[float, float, float, float]]]


def corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def a_box(rng: np.random.Generator) -> list[float]:
    width, height = rng.uniform(0.05, 0.5, 2)
    return [rng.uniform(width / 2, 1 - width / 2), rng.uniform(height / 2, 1 - height / 2),
            width, height]  # fmt: skip


def box(rng: np.random.Generator):
    numbers = a_box(rng)
    return numbers, corners(numbers)


def scored(rng: np.random.Generator):
    numbers = a_box(rng)
    return [*numbers, rng.uniform()], corners(numbers)


def polygon(points: int | None, score: bool = False) -> Draw:
    """Corners around a centre by rising angle, as masks are drawn."""

    def draw(rng: np.random.Generator):
        x, y, width, height = a_box(rng)
        number = points or int(rng.integers(3, 20))
        angles = np.sort(rng.uniform(0, 2 * np.pi, number))
        reach = rng.uniform(0.6, 1, number) / 2
        xs, ys = x + width * reach * np.cos(angles), y + height * reach * np.sin(angles)
        numbers = np.stack([xs, ys], axis=1).ravel().tolist() + [rng.uniform()] * score
        return numbers, (xs.min(), ys.min(), xs.max(), ys.max())

    return draw


def oriented(rng: np.random.Generator):
    x, y, width, height = a_box(rng)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    four = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 4, height / 4)
    points = four @ turn.T + np.array([x, y])
    points = points.clip(0, 1) if (points.clip(0, 1) == points).all() else four + np.array([x, y])
    return points.ravel().tolist(), (*points.min(axis=0), *points.max(axis=0))


def pose(keypoints: int, each: int) -> Draw:
    """Keypoints all over their box, some of them not labelled."""

    def draw(rng: np.random.Generator):
        numbers = a_box(rng)
        x1, y1, x2, y2 = corners(numbers)
        points = np.stack([rng.uniform(x1, x2, keypoints), rng.uniform(y1, y2, keypoints)], axis=1)
        points[rng.uniform(size=keypoints) < 0.1] = 0
        flags = np.where((points == 0).all(axis=1), 0, rng.integers(1, 3, keypoints))
        rest = np.concatenate([points, flags[:, None]], axis=1)[:, :each]
        return [*numbers, *rest.ravel().tolist()], (x1, y1, x2, y2)

    return draw


KINDS: dict[str, tuple[Draw, str]] = {
    "boxes": (box, ""),
    "boxes with a confidence": (scored, ""),
    "polygons": (polygon(None), ""),
    "polygons of one length": (polygon(9), ""),
    "polygons with a confidence": (polygon(None, score=True), ""),
    "oriented boxes": (oriented, ""),
    "oriented boxes, as said": (oriented, "task: obb"),
    "poses of 17": (pose(17, 3), ""),
    "poses of 4 with visibility": (pose(4, 3), ""),
    "poses of 8": (pose(8, 2), ""),
    "poses of 5 as said": (pose(5, 2), "kpt_shape: [5, 2]"),
    "poses of 2 as said": (pose(2, 2), "kpt_shape: [2, 2]"),
    "a pose as said": (pose(1, 3), "kpt_shape: [1, 3]"),
    "poses by task": (pose(2, 3), "task: pose"),
    "polygons by task": (polygon(3), "task: segment"),
}


def a_set(folder: Path, lines: Sequence[Sequence[float]], more: str = "") -> Path:
    write_image(folder / "images" / "a.png")
    (folder / "labels").mkdir(exist_ok=True)
    text = "\n".join(f"0 {' '.join(f'{v:.6g}' for v in line)}" for line in lines)
    (folder / "labels" / "a.txt").write_text(text)
    (folder / "data.yaml").write_text(f"train: images\nnames: [ant]\n{more}\n")
    return folder / "data.yaml"


def taken_for(records: RecordSet) -> str:
    return " ".join(c for r in records.remarks for c in r.cases if r.title.startswith("kinds"))


@pytest.mark.parametrize("number", [3, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_line_has_its_box(kind: str, number: int, tmp_path: Path) -> None:
    draw, more = KINDS[kind]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows = [draw(rng) for _ in range(number)]
        records = read_yolo(a_set(tmp_path, [row for row, _ in rows], more), "train")
        assert records.problems == ()
        expected = np.array([corner for _, corner in rows])
        np.testing.assert_allclose(records.records[0].boxes, expected, atol=1e-5)
        assert (kind.split()[0].rstrip(",") in taken_for(records)) is (kind != "boxes") or more


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_pose_is_never_taken_for_a_polygon_nor_the_other_way(data: st.DataObject) -> None:
    """Of any length, and however few lines: it is right, or it is told that it is not sure."""
    each = data.draw(st.sampled_from([2, 3]))
    draw = data.draw(
        st.sampled_from([pose(data.draw(st.integers(3, 20)), each), polygon(None), polygon(12)])
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    lines = Lines()
    rows = [draw(rng) for _ in range(data.draw(st.integers(2, 30)))]
    read = [lines.parse(1, " ".join(["0", *map(str, numbers)])) for numbers, _ in rows]
    kinds, doubt = lines.kinds(Declared())
    if doubt is None:
        boxes = [line.hull if kinds[line.length].hull else line.box for line in read]
        np.testing.assert_allclose(boxes, [corner for _, corner in rows], atol=1e-9)


def test_a_broken_line_does_not_make_poses_polygons(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [pose(6, 2)(rng)[0] for _ in range(30)]
    rows[7] = rows[7][:-2]
    records = read_yolo(a_set(tmp_path, rows), "train")
    (problem,) = records.problems
    assert problem.where.endswith("a.txt:8")
    assert "has 15 numbers: expected a class and 16 more" in problem.what


def test_what_can_be_either_is_an_error_that_says_how_to_say_it(tmp_path: Path) -> None:
    line = [0.5, 0.5, 0.6, 0.5, 0.4, 0.7]  # a triangle, or a box and a point
    config = a_set(tmp_path, [line])
    with pytest.raises(DataError, match=r"task: segment.*kpt_shape: \[1, 2\]"):
        YOLODataset(config, "train")
    for more, expected in (("task: segment", 0.4), ("kpt_shape: [1, 2]", 0.2)):
        box = read_yolo(a_set(tmp_path, [line], more), "train").records[0].boxes[0]
        assert box[0] == pytest.approx(expected)


def test_it_is_said_what_lines_were_taken_for(tmp_path: Path, log) -> None:
    rng = np.random.default_rng(0)
    config = a_set(tmp_path, [pose(17, 3)(rng)[0] for _ in range(4)])
    dataset = YOLODataset(config, "train")
    (line,) = log("INFO")
    assert "4 poses of 17 keypoints with visibility" in line
    report = check({"train": dataset.records}, None, (64, 64))
    (finding,) = [f for f in report.findings if f.title == "kinds of label lines"]
    assert finding.severity == "note"
    assert finding.examples[0].startswith("train: 4 poses of 17 keypoints")


@pytest.mark.parametrize(
    "shape", ["17", "[17]", "[17, 4]", "[0, 3]", "[a, 3]", "{a: 1}", "[17, 3, 1]", "[true, 2]"]
)
def test_a_shape_of_keypoints_that_is_none(shape: str, tmp_path: Path) -> None:
    config = a_set(tmp_path, [[0.5, 0.5, 0.2, 0.2]], f"kpt_shape: {shape}")
    with pytest.raises(DataError, match="kpt_shape is"):
        read_yolo(config, "train")


def test_keypoints_that_are_not_of_the_shape_said(tmp_path: Path) -> None:
    rows = [pose(5, 3)(np.random.default_rng(0))[0]]
    (problem,) = read_yolo(a_set(tmp_path, rows, "kpt_shape: [4, 3]"), "train").problems
    assert "has 20 numbers: expected a class and 4 or 16 or 17 more" in problem.what


def test_classes_that_count_from_1(tmp_path: Path) -> None:
    config = a_set(tmp_path, [[0.5, 0.5, 0.2, 0.2]])
    config.write_text("train: images\nnames: [ant, bee]\n")
    label = tmp_path / "labels" / "a.txt"
    label.write_text("1 .5 .5 .2 .2\n2 .5 .5 .2 .2\n")
    (problem,) = read_yolo(config, "train").problems
    assert "class 2: expected a whole number from 0 to 1" in problem.what
    assert "seems to count from 1" in problem.what
    label.write_text("0 .5 .5 .2 .2\n2 .5 .5 .2 .2\n")
    assert "count from 1" not in read_yolo(config, "train").problems[0].what


def test_corners_in_place_of_centre_and_sides_are_noticed(tmp_path: Path, log) -> None:
    rng = np.random.default_rng(0)
    rows = [a_box(rng) for _ in range(20)]
    YOLODataset(a_set(tmp_path, [corners(row) for row in rows]), "train")
    assert any("seem to be two corners" in line for line in log("WARNING"))
    before = len(log("WARNING"))
    YOLODataset(a_set(tmp_path, rows), "train")
    assert len(log("WARNING")) == before


def test_keypoints_close_together_are_told_by_a_visibility_of_2(tmp_path: Path) -> None:
    """As five points of a face in the box of a whole person; no coordinate is 2."""
    face = "0.50 0.20 2 0.52 0.20 2 0.51 0.21 2 0.50 0.22 2 0.50 0.20 2"
    line = [float(value) for value in f"0.5 0.5 0.4 0.8 {face}".split()]
    records = read_yolo(a_set(tmp_path, [line]), "train")
    assert records.problems == ()
    np.testing.assert_allclose(records.records[0].boxes, [(0.3, 0.1, 0.7, 0.9)])
