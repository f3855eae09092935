"""Images: those that cannot be used, those that are there more than once, those without objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_CLASS_LIST,
    BAD_ENTRY,
    IMAGE_BROKEN,
    IMAGE_MISSING,
    Record,
    RecordSet,
)
from yolox.data.datasets.tables import RecordTable
from yolox.data.decoding import DARK_BITS
from yolox.data.doctor.facts import Facts, Flaw, ImageFacts
from yolox.data.doctor.report import Finding, finding
from yolox.data.image_header import REPLACE_ADVICE

Splits = Mapping[str, RecordSet]
Cases = list[tuple[str, str]]

_PROBLEMS = {
    IMAGE_MISSING: "images that are not there",
    IMAGE_BROKEN: "images that cannot be decoded",
    BAD_ENTRY: "entries of images that cannot be used",
    BAD_ANNOTATION: "annotations that cannot be used",
    BAD_CLASS_LIST: "class lists that cannot be used",
}
_FLAWS: dict[Flaw, tuple[str, str]] = {
    "missing": ("images that are not there", f"Training refuses: {REPLACE_ADVICE}."),
    "unreadable": (
        "images that the system does not let read",
        "Training breaks off: check the file's permissions and the disk.",
    ),
    "empty": ("image files of 0 bytes", f"Training refuses: {REPLACE_ADVICE}."),
    "truncated": (
        "images that cannot be decoded: the file is cut off",
        f"Training breaks off when it comes to one: copy it again, {REPLACE_ADVICE}.",
    ),
    "undecodable": (
        "images that cannot be decoded",
        f"Training breaks off when it comes to one: {REPLACE_ADVICE}.",
    ),
    "oversized": ("images of more pixels than are decoded", "Training refuses."),
    "missized": (
        "images that are decoded in another size than their header says",
        "Training stops at the first of them: save it again.",
    ),
}


def problem_findings(splits: Splits, classes: Sequence[str] | None) -> list[Finding]:
    """What the readers could not use, a finding a kind; a given list makes up for the data's."""
    kinds: defaultdict[str, Cases] = defaultdict(list)
    for split, records in splits.items():
        for problem in records.problems:
            kinds[problem.kind].append((split, f"{problem.where}: {problem.what}"))
    return [
        found
        for kind, cases in kinds.items()
        for found in (
            finding("note", _PROBLEMS[kind], cases, "The class list that is given counts instead.")
            if kind == BAD_CLASS_LIST and classes
            else finding("error", _PROBLEMS[kind], cases, "Training refuses: correct them.")
        )
    ]


def emptiness_findings(splits: Splits) -> list[Finding]:
    """Splits and images with nothing in them."""
    tables = {split: RecordTable.of(records.records) for split, records in splits.items()}
    bare = [(split, split) for split, table in tables.items() if not table.counts().any()]
    background = [
        (split, table.names[int(i)])
        for split, table in tables.items()
        for i in np.flatnonzero(table.counts() == 0)
    ]
    return [
        *finding(
            "error", "splits without any object", bare, "Give splits whose images have objects."
        ),
        *finding(
            "note",
            "images without objects",
            background,
            "They count as background: check that they show none of the classes.",
        ),
    ]


# -------------------------------------------------------------------------------------------- files


def file_findings(splits: Splits, facts: Facts) -> list[Finding]:
    """Files without pixels, with some of them only, or of another size than annotated."""
    odd = list(_odd(splits, facts))

    def cases(example: Callable[[Record, ImageFacts], str]) -> Cases:
        every = ((split, example(record, found)) for split, record, found in odd)
        return [(split, text) for split, text in every if text]

    flawed = [
        found
        for flaw, (title, advice) in _FLAWS.items()
        for found in finding(
            "error",
            title,
            cases(lambda r, f, flaw=flaw: _flawed(r, f) if f.flaw == flaw else ""),  # type: ignore[misc]
            advice,
        )
    ]
    return [
        *flawed,
        *finding(
            "error",
            "images of which the lower part is missing from the file",
            cases(_grey),
            f"Objects there are learned as grey: copy it again, {REPLACE_ADVICE}.",
        ),
        *finding(
            "warning",
            "images of another size than the annotation says",
            cases(_other_size),
            "Training takes the file's size and the boxes as pixels of it: look at some of them "
            "on a sheet.",
        ),
        *finding(
            "warning",
            "truncated images: the end of the file is missing",
            cases(lambda r, f: "" if f.flaw or f.complete or f.grey else str(r.image)),
            "They are decoded as far as they go and little is lost, but other programs may refuse "
            "them: copy them again.",
        ),
        *finding(
            "warning",
            "16-bit images that are nearly black, for they use the lower bits alone",
            cases(_dark),
            "The network sees value / 256: save them as 8 bits, their values divided by 2 to the "
            "power of (bits - 8), which is 16 for 12 bits.",
        ),
    ]


def _odd(splits: Splits, facts: Facts) -> Iterator[tuple[str, Record, ImageFacts]]:
    """The images of which something has to be told."""
    for split, records in splits.items():
        table = RecordTable.of(records.records)
        for i, said in enumerate(table.sizes.tolist()):
            found = facts.get(table.image(i))
            if found is None:
                continue
            other = tuple(said) not in ((0, 0), found.size)
            if found.flaw or other or found.grey or not found.complete or found.bits is not None:
                yield split, table[i], found


def _flawed(record: Record, facts: ImageFacts) -> str:
    return f"{record.image} {facts.why}".rstrip()


def _grey(record: Record, facts: ImageFacts) -> str:
    if not facts.grey:
        return ""
    return f"{record.image}: {facts.grey:.0%} grey{'' if facts.complete else ', truncated'}"


def _dark(record: Record, facts: ImageFacts) -> str:
    if facts.bits is None or facts.bits > DARK_BITS:
        return ""
    return f"{record.image}: {facts.bits} bits of 16"


def _other_size(record: Record, facts: ImageFacts) -> str:
    if facts.size is None or record.size in (None, facts.size):
        return ""
    assert record.size is not None
    turned = " (turned, as by its EXIF orientation)" if record.size == facts.size[::-1] else ""
    said, true = ("×".join(map(str, size)) for size in (record.size, facts.size))
    return f"{record.name}: height×width {said} in the annotation, {true} in truth{turned}"


# ------------------------------------------------------------------------------------------- copies


def copy_findings(splits: Splits, facts: Facts | None = None) -> list[Finding]:
    """Images in two splits, and images that one split holds twice.

    With facts, images are the same if their files are, byte by byte; without, if it is one file.
    """
    tables = {split: RecordTable.of(records.records) for split, records in splits.items()}
    groups: defaultdict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    for split, table in tables.items():
        for i in range(len(table)):
            groups[_identity(table.image(i), facts)].append((split, i))
    shared: Cases = []
    repeated: Cases = []
    for group in groups.values():
        if len(group) == 1:
            continue
        first: dict[str, int] = {}
        for split, i in group:
            first.setdefault(split, i)
            if i != first[split]:
                table = tables[split]
                repeated.append((split, _repeat(split, table[i], table[first[split]])))
        if len(first) > 1:
            places = [f"{tables[split].names[i]} in {split}" for split, i in first.items()]
            shared.append((" and ".join(first), " = ".join(places)))
    return [
        *finding(
            "error",
            "images in more than one split",
            shared,
            "AP on images that were trained on says nothing: keep each in one split.",
        ),
        *finding(
            "warning",
            "images that are in a split again",
            repeated,
            "They count twice, and with different annotations against themselves: keep one.",
        ),
    ]


def _identity(image: Path, facts: Facts | None) -> Hashable:
    found = facts.get(image) if facts else None
    return (found.digest if found else "") or str(image)


def _repeat(split: str, record: Record, first: Record) -> str:
    same = (record.names, record.boxes) == (first.names, first.boxes)
    differ = "" if same else ", annotated differently"
    return f"{record.name} = {first.name} in {split}{differ}"
