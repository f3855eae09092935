"""Class lists that everybody has, told by the names of the data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolox.data import COCO_CLASSES, VOC_CLASSES, known_order, rows_by_name

VOC_SPELLING = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


@given(st.permutations(COCO_CLASSES), st.integers(1, 80))
def test_any_of_coco_s_names_in_any_order_are_its_own(names: list[str], count: int) -> None:
    found = known_order(80, names[:count])
    assert found is not None
    assert (found.title, found.names) == ("COCO", COCO_CLASSES)


@given(st.permutations(VOC_CLASSES), st.sampled_from([20, 80]))
def test_voc_s_names_are_of_both_lists(names: list[str], count: int) -> None:
    found = known_order(count, names)
    assert found is not None
    if count == 20:
        assert found.names == VOC_CLASSES
    else:
        assert set(VOC_CLASSES) < set(found.names)
        assert found.names == tuple(VOC_SPELLING.get(name, name) for name in COCO_CLASSES)


@pytest.mark.parametrize("change", [str.upper, str.title, lambda name: name.replace(" ", "_")])
def test_names_are_kept_as_the_data_spell_them(change: object) -> None:
    assert callable(change)
    names = [change(name) for name in sorted(COCO_CLASSES)]
    found = known_order(80, names)
    assert found is not None
    assert found.names == tuple(change(name) for name in COCO_CLASSES)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (80, []),
        (80, ["person", "drone"]),
        (80, ["tv", "tvmonitor"]),  # one class under two names
        (79, COCO_CLASSES[1:]),
        (20, COCO_CLASSES[:20]),
        (3, ["person", "car", "dog"]),
    ],
)
def test_what_tells_nothing(count: int, names: list[str]) -> None:
    assert known_order(count, names) is None


def test_rows_by_name() -> None:
    assert rows_by_name(("a", "b c", "d"), ("D", "b_c", "x")) == [2, 1, None]
    assert rows_by_name(("sofa", "cat"), ("cat", "Couch")) == [1, 0]
    # What a list holds in two spellings is found by the exact one alone.
    assert rows_by_name(("Cat", "cat"), ("cat", "CAT")) == [1, None]
