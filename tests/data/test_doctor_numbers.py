"""What the doctor says of images with very many objects."""

from __future__ import annotations

from pathlib import Path

from yolox.data import Record, RecordSet
from yolox.data.doctor import check


def records(*counts: int) -> RecordSet:
    """Images of so many cats each, as a grid of boxes."""
    rows = tuple(
        Record(
            name=f"{i % 2}.jpg",  # two years can have images of one name
            image=Path(f"{i}.jpg"),
            source=Path("labels"),
            size=(400, 400),
            names=("cat",) * count,
            boxes=tuple(
                (x, y, x + 10.0, y + 10.0) for n in range(count) for y, x in [divmod(n * 10, 400)]
            ),
            difficult=(False,) * count,
        )
        for i, count in enumerate(counts)
    )
    return RecordSet(title="made up", records=rows, classes=("cat",))


def titles(max_labels: int | None, *counts: int) -> dict[str, str]:
    split = {"train": records(*counts), "val": records(*counts)}
    found = check(split, None, (400, 400), max_labels=max_labels).findings
    return {
        item.headline(): item.advice for item in found if item.title.startswith("images with more")
    }


def test_objects_that_a_cap_cuts_are_counted() -> None:
    found = titles(10, 5, 12, 30)
    (advice,) = found.values()
    assert list(found) == [
        "images with more objects than max_labels 10 keeps: 2 (train 2)",
    ]
    assert advice.startswith("22 of 47 objects are cut each epoch")
    assert titles(30, 5, 12, 30) == titles(None, 5, 12, 30) == {}


def test_images_too_full_for_the_rule_of_coco_are_told() -> None:
    assert titles(None, 100) == {}
    (line,) = titles(None, 101, 3)
    assert line == "images with more than 100 objects of a class: 1 (val 1)"
