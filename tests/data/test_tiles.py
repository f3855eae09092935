"""Where tiles lie, what they are called, and the way back to the whole image."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolox.data import DataError, Sample
from yolox.data.tiles import (
    WholeRecord,
    parse_tile_name,
    tile_name,
    tile_windows,
    whole_images,
)


def test_windows_by_hand():
    assert tile_windows(100, 250, 100, 20) == [
        (0, 0, 100, 100),
        (80, 0, 180, 100),
        (150, 0, 250, 100),
    ]
    assert tile_windows(260, 100, 100, 20) == [
        (0, 0, 100, 100),
        (0, 80, 100, 180),
        (0, 160, 100, 260),
    ]
    assert tile_windows(101, 101, 100, 0) == [
        (0, 0, 100, 100),
        (1, 0, 101, 100),
        (0, 1, 100, 101),
        (1, 1, 101, 101),
    ]


def test_a_small_image_is_one_window():
    assert tile_windows(40, 60, 100, 20) == [(0, 0, 60, 40)]
    assert tile_windows(100, 100, 100, 99) == [(0, 0, 100, 100)]
    assert tile_windows(40, 150, 100, 20) == [(0, 0, 100, 40), (50, 0, 150, 40)]


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.integers(8, 120),
    share=st.floats(0, 0.9),
)
def test_windows_cover_and_overlap(height, width, size, share):
    overlap = int(share * (size - 1))
    windows = tile_windows(height, width, size, overlap)
    assert len(set(windows)) == len(windows)
    seen = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(size, width), min(size, height))
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    for side, axis in ((width, 0), (height, 1)):
        starts = sorted({window[axis] for window in windows})
        assert all(b <= a + size - overlap for a, b in itertools.pairwise(starts))
        assert starts[-1] == max(0, side - size)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 10, 0, 0), "at least 1"),
        ((0, 10, 5, 0), "at least 1"),
        ((10, 10, 5, 5), "expected 0 to 4 for tiles of 5, got 5"),
        ((10, 10, 5, -1), "got -1"),
    ],
)
def test_windows_refuse(arguments, words):
    with pytest.raises(ValueError, match=words):
        tile_windows(*arguments)


def test_names_carry_source_and_offset():
    assert tile_name("P0706", 824, 0) == "P0706__1__824___0"
    assert parse_tile_name("P0706__1__824___0") == ("P0706", 824, 0)
    for name in ("P0706", "P0706__1__824", "P0706__0.5__824___0", "__1__1___2", "P__1__-1___2"):
        with pytest.raises(ValueError, match="not the name of a tile"):
            parse_tile_name(name)


@settings(deadline=None)
@given(st.text("ab_1 .", min_size=1, max_size=12), st.integers(0, 10**6), st.integers(0, 10**6))
def test_names_come_back(source, x, y):
    assert parse_tile_name(tile_name(source, x, y)) == (source, x, y)


# ------------------------------------------------------------------------------------- whole images

RECORD = WholeRecord(
    name="P1",
    height=100,
    width=150,
    size=100,
    overlap=20,
    settings={"split": "train"},
    names=("ship", "plane"),
    boxes=((1.0, 2.5, 30.0, 40.0), (90.0, 0.0, 140.0, 99.0)),
    difficult=(False, True),
)


def _tiles(root: Path, record: WholeRecord = RECORD, first_id: int = 0) -> list[Sample]:
    """The samples of an image's tiles, its record written."""
    path = root / "Whole" / f"{record.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(record.to_json(), encoding="utf-8")
    return [
        Sample(
            image_id=first_id + i,
            name=tile_name(record.name, x1, y1),
            path=root / "JPEGImages" / f"{tile_name(record.name, x1, y1)}.png",
            height=y2 - y1,
            width=x2 - x1,
            boxes=np.zeros((0, 4), np.float32),
            classes=np.zeros(0, np.int64),
            difficult=np.zeros(0, np.bool_),
        )
        for i, (x1, y1, x2, y2) in enumerate(record.windows())
    ]


def test_records_come_back(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(RECORD.to_json(), encoding="utf-8")
    assert WholeRecord.read(path) == RECORD


def test_whole_images_hold_their_own_ground_truth(tmp_path):
    other = dataclasses.replace(RECORD, name="P2", width=90, names=(), boxes=(), difficult=())
    samples = [*_tiles(tmp_path, first_id=7), *_tiles(tmp_path, other, first_id=20)]
    one, two = whole_images(samples, ("plane", "ship"))
    assert (one.image_id, one.name, one.height, one.width) == (0, "P1", 100, 150)
    assert one.tiles == {7: (0, 0), 8: (50, 0)}
    np.testing.assert_array_equal(one.boxes, np.array(RECORD.boxes, np.float32))
    assert one.classes.tolist() == [1, 0]
    assert one.difficult.tolist() == [False, True]
    assert (two.image_id, two.tiles, two.boxes.shape) == (1, {20: (0, 0)}, (0, 4))


def test_whole_images_need_tiles(tmp_path):
    stranger = dataclasses.replace(_tiles(tmp_path)[0], name="dog")
    with pytest.raises(DataError, match=r"1 of 3 images are no tiles(.|\n)*- dog"):
        whole_images([*_tiles(tmp_path), stranger], ("plane", "ship"))


def test_whole_images_need_every_tile(tmp_path):
    with pytest.raises(DataError, match="P1: 1 of 2 tiles of 100 with overlap 20") as caught:
        whole_images(_tiles(tmp_path)[1:], ("plane", "ship"))
    assert "`yolox.data.convert`, keep_empty 1, into" in str(caught.value)
    moved = [dataclasses.replace(s, name="P1__1__60___0") for s in _tiles(tmp_path)[1:]]
    with pytest.raises(DataError, match=r"1 of 2 tiles .*, and 1 others"):
        whole_images([_tiles(tmp_path)[0], *moved], ("plane", "ship"))


def test_whole_images_need_known_classes(tmp_path):
    with pytest.raises(DataError, match=r"\[plane\](.|\n)*P1: ship"):
        whole_images(_tiles(tmp_path), ("plane",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not there"),
        ("{", "not what the converter writes"),
        ("[]", "not what the converter writes"),
        ('{"name": "P1"}', "not what the converter writes"),
        (RECORD.to_json().replace('"overlap": 20', '"overlap": 100'), "not what the converter"),
        (RECORD.to_json().replace('["ship", "plane"]', '["ship"]'), "a name, a box and a diff"),
        (RECORD.to_json().replace("30.0, 40.0", "30.0"), "a name, a box and a difficulty"),
    ],
)
def test_unusable_records_are_named(tmp_path, text, words):
    samples = _tiles(tmp_path)
    path = tmp_path / "Whole" / "P1.json"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        whole_images(samples, ("plane", "ship"))
    assert str(path) in str(caught.value)
