"""The examination: all findings over records, or those that need no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from yolox.data.datasets.records import RecordSet
from yolox.data.doctor.boxes import box_findings, split_stats, tabulate, unlearnable_findings
from yolox.data.doctor.facts import Facts
from yolox.data.doctor.images import (
    copy_findings,
    emptiness_findings,
    file_findings,
    problem_findings,
)
from yolox.data.doctor.labels import count_objects, label_findings, listed_classes
from yolox.data.doctor.numbers import number_findings
from yolox.data.doctor.remarks import remark_findings
from yolox.data.doctor.report import SEVERITIES, Finding, Report


def check(
    records_by_split: Mapping[str, RecordSet],
    classes: Sequence[str] | None,
    input_size: tuple[int, int],
    facts: Facts | None = None,
    *,
    max_labels: int | None = None,
) -> Report:
    """Examine a data set; reads no file.

    Args:
        records_by_split: the first split is the one trained on, others are evaluated on.
        classes: the class list; None takes the one that the data states, else all names found.
        input_size: (height, width) of the network's input in pixels.
        facts: of the image files, see `inspect_images`; without, images are not judged, and
            their sizes are taken from the annotations.
        max_labels: objects of an image that training keeps; None for all.

    Raises ValueError where there is no split.
    """
    if not records_by_split:
        raise ValueError("no split given: expected at least the one to train on")
    listed = listed_classes(records_by_split, classes)
    counts = count_objects(records_by_split)
    names = listed or tuple(sorted(set().union(*counts.values())))
    tables = {
        split: tabulate(records, facts or {}, input_size)
        for split, records in records_by_split.items()
    }
    found = [
        *problem_findings(records_by_split, classes),
        *emptiness_findings(records_by_split),
        *unlearnable_findings(tables),
        *remark_findings(records_by_split, tables),
        *label_findings(counts, listed),
        *file_findings(records_by_split, facts or {}),
        *copy_findings(records_by_split, facts),
        *box_findings(tables, input_size),
        *number_findings(records_by_split, max_labels),
    ]
    return Report(
        classes=names,
        input_size=input_size,
        splits={
            split: split_stats(records_by_split[split], table, names)
            for split, table in tables.items()
        },
        findings=_sorted(found),
    )


def quick_check(
    records_by_split: Mapping[str, RecordSet], classes: Sequence[str] | None = None
) -> list[str]:
    """Errors and warnings that no image has to be opened for, one line each, errors first.

    What the readers could not use, classes against the list, spelling, images in two splits by
    their file. What they remarked is left to `build_samples`, which logs it. Arguments as of
    `check`.
    """
    found = [
        *problem_findings(records_by_split, classes),
        *emptiness_findings(records_by_split),
        *label_findings(count_objects(records_by_split), listed_classes(records_by_split, classes)),
        *copy_findings(records_by_split),
    ]
    return [item.line() for item in _sorted(found) if item.severity != "note"]


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda item: SEVERITIES.index(item.severity)))
