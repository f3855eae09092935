"""Numbers, flags and outlines as exporters write them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from yolox.data.datasets.outlines import segmentation_box
from yolox.data.datasets.values import as_flag, as_number, as_whole


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        ("3", 3.0),
        (" -2.5e1 ", -25.0),
        (".5", 0.5),
        (True, None),
        ("1_0", None),
        ("1,5", None),
        ("nan", None),
        (float("inf"), None),
        (10**400, None),
        ("1e999", None),
        ("٣", None),
        ("", None),
        (None, None),
        ([1], None),
    ],
)
def test_as_number_reads_numbers_alone(value: object, number: float | None) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (7, 7),
        ("007", 7),
        (7.0, 7),
        ("7.0", 7),
        ("9007199254740993", 9007199254740993),
        (7.5, None),
        (True, None),
        (2**63, None),
        ("9" * 30, None),
        (1e300, None),
        ("img7", None),
        (None, None),
    ],
)
def test_as_whole_reads_whole_numbers_alone(value: object, whole: int | None) -> None:
    assert as_whole(value) == whole


@pytest.mark.parametrize("value", [1, 1.0, True, "1", " True ", "yes", "1.0", "Y"])
def test_as_flag_reads_yes(value: object) -> None:
    assert as_flag(value) is True


@pytest.mark.parametrize(
    "value", [0, 0.0, False, None, "0", "False", "no", "", " ", "0.0", "Unspecified"]
)
def test_as_flag_reads_no(value: object) -> None:
    assert as_flag(value) is False


@pytest.mark.parametrize("value", [2, -1, "2", "maybe", [], [0], {}, float("nan")])
def test_as_flag_refuses_anything_else(value: object) -> None:
    assert as_flag(value) is None


# ---------------------------------------------------------------------------------------- outlines


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10_000), st.booleans())
def test_masks_have_the_box_of_their_pixels(h: int, w: int, seed: int, block: bool) -> None:
    rng = np.random.default_rng(seed)
    pixels = (rng.random((h, w)) < rng.choice([0.02, 0.5, 1.0])).astype(np.uint8)
    if block:
        pixels[:] = 0
        pixels[rng.integers(h) :, rng.integers(w) :] = 1
    written = mask.encode(np.asfortranarray(pixels))
    ys, xs = np.nonzero(pixels)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
    text = {"size": [h, w], "counts": written["counts"].decode()}
    changes = np.flatnonzero(np.diff(pixels.T.ravel(), prepend=0, append=2))
    plain = {"size": [str(h), w], "counts": np.diff(changes, prepend=0).tolist()}
    assert segmentation_box(text) == segmentation_box(plain) == expected


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        "1 2 3 4 5 6",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, "x"]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [5],
        {},
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": "\x7f\x7f"},
        {"size": [2, 2], "counts": "ooooooooooooooooooooooo"},
        {"size": [0, 2], "counts": []},
        {"size": [2, 2], "counts": 4},
        {"size": [1e9, 1e9], "counts": [1]},
        {"size": None, "counts": [4]},
    ],
)
def test_what_is_no_outline(segmentation: object) -> None:
    assert segmentation_box(segmentation) is None


def test_polygons_have_the_box_of_all_of_them() -> None:
    assert segmentation_box([[5, 6, 9, 6, 9, 8], ["1", 7, 2, 7, 2, 20]]) == (1, 6, 9, 20)
    assert segmentation_box([5, 6, 9, 6, 9, 8]) == (5, 6, 9, 8)
