import dataclasses
import pickle
from itertools import pairwise
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from yolox.data.datasets.records import Record
from yolox.data.datasets.sample import Sample
from yolox.data.datasets.tables import RecordTable, SampleTable, Strings

RECORDS = [
    Record(name="é", image=Path("/a/é.jpg"), source=Path("/a/é.xml")),
    Record(
        name="b", image=Path("b.jpg"), source=Path("/a/b.xml"), image_id=7, size=(3, 4),
        names=("cat", "dog", "cat"), boxes=((0, 1, 2, 3), (0.1, 0.2, 0.3, 0.4), (5, 5, 5, 5)),
        difficult=(False, True, False),
    ),
    Record(name="c", image=Path("c.jpg"), source=Path("/a/é.xml"), image_id=0, relative=True,
           names=("dog",), boxes=((0, 0, 1, 1),), difficult=(False,)),
]  # fmt: skip


def samples():
    return SampleTable(
        names=Strings.of(["a", "b", "c"]),
        images=Strings.of(["a.jpg", "b.jpg", "c.jpg"]),
        folder="/images",
        ids=np.array([30, 10, 20]),
        sizes=np.array([[4, 6], [5, 5], [8, 9]], np.int32),
        ends=np.array([0, 2, 3]),
        boxes=np.arange(12, dtype=np.float32).reshape(3, 4),
        classes=np.array([1, 0, 1], np.int32),
        difficult=np.array([False, True, False]),
    )


def test_records_come_back_as_they_were():
    table = RecordTable.of(RECORDS)
    assert table == RECORDS
    assert RecordTable.of(table) is table
    assert table[-1] == RECORDS[-1]
    assert table[1:] == RECORDS[1:]
    assert RecordTable.of([]) == []
    assert table.counts().tolist() == [0, 3, 1]
    assert [table.image_of(number) for number in range(4)] == [1, 1, 1, 2]
    with pytest.raises(IndexError):
        table[3]


def test_samples_are_made_when_they_are_asked_for():
    table = samples()
    sample = table[1]
    assert (sample.image_id, sample.name, sample.path) == (10, "b", Path("/images/b.jpg"))
    assert (sample.height, sample.width) == (5, 5)
    assert sample.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sample.classes.dtype == np.int64
    assert sample.classes.tolist() == [1, 0]
    assert [len(s.boxes) for s in table] == [0, 2, 1]
    assert table.with_classes(np.array([5, 6]))[1].classes.tolist() == [6, 5]
    assert isinstance(table[0], Sample)


def test_names_by_id():
    names = samples().names_by_id()
    assert dict(names) == {30: "a", 10: "b", 20: "c"}
    assert names.get(15, "none") == "none"
    assert names.get(99, "none") == "none"


def test_a_table_goes_to_other_processes_by_shared_memory():
    """The arrays are sent as tensors, for which PyTorch sends a handle."""
    table = RecordTable.of(RECORDS)
    assert pickle.loads(pickle.dumps(table)) == table
    large = samples()
    large = dataclasses.replace(large, boxes=np.zeros((100_000, 4), np.float32))
    assert len(ForkingPickler.dumps(large)) < 20_000


@pytest.mark.parametrize("cuts", [(0, 1, 3), (0, 0, 2, 3), (0, 3), (0, 0)])
def test_parts_are_joined_to_the_table_of_all(cuts):
    records = RECORDS[: cuts[-1]]
    parts = [records[start:end] for start, end in pairwise(cuts)]
    joined = RecordTable.joined([RecordTable.of(part) for part in parts])
    whole = RecordTable.of(records)
    assert joined == whole
    assert (joined.class_names, joined.sources) == (whole.class_names, whole.sources)
    for name in ("source", "ids", "sizes", "ends", "classes", "boxes", "difficult", "relative"):
        found, expected = getattr(joined, name), getattr(whole, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert RecordTable.joined([]) == []
