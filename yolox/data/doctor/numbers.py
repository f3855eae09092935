"""How many objects an image holds, where something looks at no more than so many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from yolox.data.datasets.records import Record, RecordSet
from yolox.data.datasets.tables import RecordTable
from yolox.data.doctor.report import Finding, finding
from yolox.utils.choices import DETECTION_LIMIT


def number_findings(
    records_by_split: Mapping[str, RecordSet], max_labels: int | None
) -> list[Finding]:
    """Objects that training cuts, in the first split, and images too full for COCO's rule.

    Args:
        records_by_split: the split that is trained on first.
        max_labels: objects of an image that training keeps, None for all.
    """
    train, *others = records_by_split
    crowded = [
        (split, f"{record.name}: {number:,} {name!r}")
        for split in others or [train]
        for record in _full(records_by_split[split])
        for name, number in Counter(record.names).items()
        if number > DETECTION_LIMIT
    ]
    return [
        *(_cut(train, records_by_split[train], max_labels) if max_labels else ()),
        *finding(
            "note",
            f"images with more than {DETECTION_LIMIT} objects of a class",
            crowded,
            f"COCO's rule looks at the {DETECTION_LIMIT} best detections of a class in an image, "
            "so its AP cannot reach 1 here: go by the VOC figures.",
        ),
    ]


def _full(records: RecordSet) -> Iterator[Record]:
    """The images that can have more objects of a class than COCO's rule looks at."""
    table = RecordTable.of(records.records)
    return (table[int(i)] for i in np.flatnonzero(table.counts() > DETECTION_LIMIT))


def _cut(split: str, records: RecordSet, max_labels: int) -> list[Finding]:
    table = RecordTable.of(records.records)
    counts = table.counts()
    cut = int((counts - max_labels).clip(min=0).sum())
    full = np.flatnonzero(counts > max_labels).tolist()
    return finding(
        "warning",
        f"images with more objects than max_labels {max_labels} keeps",
        [(split, f"{table.names[i]}: {counts[i]:,} objects") for i in full],
        f"{cut:,} of {int(counts.sum()):,} objects are cut each epoch and count as background "
        "there; in mosaics, which show parts of four images, more. max_labels 0 keeps all.",
    )
