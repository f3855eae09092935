"""Classes: those of the annotations against the class list, and how often each occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from yolox.data.datasets.known_classes import fold_name
from yolox.data.datasets.records import RecordSet
from yolox.data.datasets.tables import RecordTable
from yolox.data.doctor.report import Finding, finding
from yolox.data.doctor.spelling import nearest, pairs_alike

_IMBALANCE_RATIO = 20  # times as many objects

Counts = Mapping[str, Counter[str]]


def listed_classes(
    records_by_split: Mapping[str, RecordSet], classes: Sequence[str] | None
) -> tuple[str, ...] | None:
    """The class list: as given, else the first that the data states, else None."""
    stated = (records.classes for records in records_by_split.values())
    return tuple(classes) if classes else next((names for names in stated if names), None)


def count_objects(records_by_split: Mapping[str, RecordSet]) -> dict[str, Counter[str]]:
    """Objects of each class by split."""
    counts: dict[str, Counter[str]] = {}
    for split, records in records_by_split.items():
        table = RecordTable.of(records.records)
        codes, first, numbers = np.unique(table.classes, return_index=True, return_counts=True)
        counts[split] = Counter(
            {table.class_names[codes[i]]: int(numbers[i]) for i in np.argsort(first)}
        )
    return counts


def label_findings(counts: Counts, listed: Sequence[str] | None) -> list[Finding]:
    """What is wrong with the classes; the first split is the one trained on."""
    total = sum(counts.values(), Counter[str]())
    classes = sorted(total) if listed is None else listed
    return [
        *_unknown(counts, classes, set(total) - set(classes)),
        *_absent(counts, classes, total),
        *_alike(total, listed or ()),
        *_imbalance(counts, classes),
    ]


def _unknown(counts: Counts, classes: Sequence[str], unknown: set[str]) -> list[Finding]:
    cases = []
    for split, found in counts.items():
        for name in sorted(unknown & set(found)):
            hint = nearest(name, classes)
            meant = f"; meant {hint!r}?" if hint else ""
            cases.append((split, f"{name!r}: {found[name]:,} objects in {split}{meant}"))
    return finding(
        "error",
        "classes of the annotations that are not in the class list",
        cases,
        f"The list is [{', '.join(classes)}]: add them to it, or correct the annotations.",
    )


def _absent(counts: Counts, classes: Sequence[str], total: Counter[str]) -> list[Finding]:
    """Classes of the list without objects: anywhere, to train on, to evaluate on."""
    train, *others = counts
    everywhere = [("", repr(name)) for name in classes if not total[name]]
    unlearned = [(train, repr(n)) for n in classes if total[n] and not counts[train][n]]
    unmeasured = [
        (split, f"{name!r} in {split}")
        for split in others
        for name in classes
        if counts[train][name] and not counts[split][name]
    ]
    return [
        *finding(
            "warning",
            "classes of the list without any object",
            everywhere,
            "Nothing can be learned of them: take them out of the list, or look for a spelling "
            "that differs.",
        ),
        *finding(
            "warning",
            f"classes without objects in {train}",
            unlearned,
            "They are evaluated, but cannot be learned: move some of their images there.",
        ),
        *finding(
            "warning",
            "classes without objects to evaluate on",
            unmeasured,
            "Their AP cannot be measured: move some of their images there.",
        ),
    ]


def _alike(total: Counter[str], listed: Sequence[str]) -> list[Finding]:
    """Names that may be one; two of the list, a letter apart, are likely meant to be two."""
    pairs = pairs_alike({*total, *listed})
    meant = [(a, b) for a, b in pairs if {a, b} <= set(listed) and fold_name(a) != fold_name(b)]
    title = "pairs of class names that are spelled alike"
    advice = "If each pair is one class, write its name in one way."

    def cases(chosen: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [("", f"{a!r} ({total[a]:,}) and {b!r} ({total[b]:,})") for a, b in chosen]

    doubtful = [pair for pair in pairs if pair not in meant]
    return [
        *finding("warning", title, cases(doubtful), advice),
        *finding("note", f"{title}, each in the class list", cases(meant), advice),
    ]


def _imbalance(counts: Counts, classes: Sequence[str]) -> list[Finding]:
    train = next(iter(counts))
    present = [name for name in classes if counts[train][name]]
    most = max(present, key=lambda name: counts[train][name], default="")
    rare = sorted(present, key=lambda name: counts[train][name])
    return finding(
        "note",
        f"classes with less than 1/{_IMBALANCE_RATIO} of the objects of the most frequent one",
        [
            (train, f"{name!r}: {counts[train][name]:,}, {most!r}: {counts[train][most]:,}")
            for name in rare
            if counts[train][name] * _IMBALANCE_RATIO < counts[train][most]
        ],
        "Expect low AP of them; more images that show them help most.",
    )
