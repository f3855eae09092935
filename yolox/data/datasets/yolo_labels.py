"""The label files of images: where they are, and what their lines come to."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from yolox.data.datasets.files import IMAGE_EXTENSIONS
from yolox.data.datasets.records import BAD_ANNOTATION, Problem, Record, Remark, remark
from yolox.data.datasets.yolo_lines import BOX, Kind, Line, Lines
from yolox.data.errors import DataError

OTHER_LISTS = ("classes.txt", "obj.names")  # that tools write beside labels


class LabelFiles:
    """Finds label files: in ``labels`` where the image is in ``images``, or beside the image.

    Only folders below the data set's root count: what is above it is the person's own. An image
    that is not below the root has all its folders looked at. Of several folders called images the
    last one comes first. The case of ``images`` and ``labels`` does not matter.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, frozenset[str]] = {}
        self._places: dict[Path, list[Path]] = {}

    def find(self, image: Path) -> tuple[list[Path], Path]:
        """The label files that are there, and the one to read, or where it was expected."""
        parent = image.parent
        if parent not in self._places:
            self._places[parent] = list(dict.fromkeys(self._folders(parent)))
        folders, stem = self._places[parent], image.stem
        found = [
            folder / name
            for folder in folders
            for name in (f"{stem}.txt", f"{stem}.TXT")
            if name in self._listing(folder)
        ]
        return found, found[0] if found else folders[0] / f"{stem}.txt"

    def label_names(self, folder: Path) -> list[str]:
        """Names of the label files in a folder, whether an image belongs to them or not."""
        return [name for name in self._listing(folder) if name.lower().endswith(".txt")]

    def _folders(self, parent: Path) -> Iterator[Path]:
        """Where the labels of images in a folder can be."""
        below = parent.is_relative_to(self._root)
        base = self._root if below else Path(parent.anchor)
        parts = parent.relative_to(base).parts
        for i in reversed(range(len(parts))):
            if parts[i].casefold() == "images":
                for labels in self._labels_in(base.joinpath(*parts[:i])):
                    yield labels.joinpath(*parts[i + 1 :])
        yield parent
        if below and base.name.casefold() == "images":
            for labels in self._labels_in(base.parent):
                yield labels.joinpath(*parts)

    def _labels_in(self, folder: Path) -> list[Path]:
        """The folders called labels, the one in small letters first, there or not."""
        names = sorted(name for name in self._listing(folder) if name.casefold() == "labels")
        return [folder / name for name in dict.fromkeys(["labels", *names])]

    def _listing(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(entry.name for entry in os.scandir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The label file of an image as it is read: where it is or was expected, lines, faults."""

    image: Path
    source: Path
    there: tuple[Path, ...]
    lines: tuple[Line, ...]
    faults: tuple[tuple[str, str], ...]


def read_labels(image: Path, files: LabelFiles, lines: Lines) -> Labels:
    """One image's lines, and what no line is; `lines` gets to know them."""
    there, source = files.find(image)
    faults: list[tuple[str, str]] = []
    found = []
    for number, text in enumerate(_label_lines(source, faults), start=1):
        if not text.strip():
            continue
        try:
            found.append(lines.parse(number, text))
        except DataError as error:
            faults.append((f"{source}:{number}", str(error)))
    return Labels(
        image=image, source=source, there=tuple(there), lines=tuple(found), faults=tuple(faults)
    )


def _label_lines(source: Path, faults: list[tuple[str, str]]) -> list[str]:
    """The lines of a label file, none if it is not there."""
    try:
        return source.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        faults.append((str(source), f"cannot be read ({error.strerror})"))
    except UnicodeDecodeError:
        faults.append((str(source), "is not text"))
    return []


def labelled_records(
    labels: Sequence[Labels],
    kinds: Mapping[int, Kind],
    root: Path,
    names: Sequence[str],
    problems: list[Problem],
) -> tuple[Record, ...]:
    """The images with their boxes; without objects if a line of them cannot be used."""
    classes = len(names)
    indices = {line.category for label in labels for line in label.lines}
    from_1 = (
        "; the classes of this split are 1 to "
        f"{classes}: it seems to count from 1, where YOLO's lines count from 0"
        if indices and min(indices) == 1 and max(indices) == classes
        else ""
    )
    records = []
    for label in labels:
        faults = list(label.faults)
        for line in label.lines:
            what = _fault(line, kinds, classes)
            if what is not None:
                what += from_1 if line.category == classes else ""
                faults.append((f"{label.source}:{line.number}", what))
        problems += [Problem(kind=BAD_ANNOTATION, where=where, what=what) for where, what in faults]
        usable = () if faults else label.lines
        within = label.image.is_relative_to(root)
        name = label.image.relative_to(root).as_posix() if within else str(label.image)
        records.append(
            Record(
                name=name,
                image=label.image,
                source=label.source,
                names=tuple(names[int(line.category)] for line in usable),
                boxes=tuple(
                    line.hull if line.hull and kinds[line.length].hull else line.box
                    for line in usable
                ),
                difficult=(False,) * len(usable),
                relative=True,
            )
        )
    return tuple(records)


def _fault(line: Line, kinds: Mapping[int, Kind], classes: int) -> str | None:
    """Why a line cannot be used, None if it can."""
    if line.length not in kinds:
        expected = "4 of a box, or a class and the x y of at least 3 corners"
        if not all(kind.hull or kind is BOX for kind in kinds.values()):
            expected = f"{' or '.join(map(str, kinds))} more"
        return f"has {line.length + 1} numbers: expected a class and {expected}"
    if not (0 <= line.category < classes and line.category == int(line.category)):
        return f"class {line.category:g}: expected a whole number from 0 to {classes - 1}"
    if line.length == 5 and line.box_inside and not line.all_inside:
        return (
            "has a number after the box that is no confidence, 0 to 1 (an oriented box is given by "
            "its four corners)"
        )
    if not (line.all_inside if kinds[line.length].all_fractions else line.box_inside):
        return (
            "is not all fractions: expected 0 to 1 after the class (pixels are divided by the "
            "image's width and height, percent by 100)"
        )
    return None


# ---------------------------------------------------------------------------------------- remarks


def kind_remarks(labels: Sequence[Labels], kinds: Mapping[int, Kind]) -> list[Remark]:
    """What the lines were taken for, where that is more than boxes."""
    words = Counter(
        kinds[line.length].words for label in labels for line in label.lines if line.length in kinds
    )
    cases = [f"{lines:,} {kind}" for kind, lines in words.most_common()]
    return remark(
        "note",
        "kinds of label lines",
        cases if set(words) != {BOX.words} else [],
        "If they are something else, say so in data.yaml: kpt_shape: [keypoints, 2 or 3], or task: "
        "detect, segment, pose or obb.",
    )


def file_remarks(labels: Sequence[Labels]) -> list[Remark]:
    """Label files that are not there, there twice, or of two images."""
    without = [label for label in labels if not label.there]
    most = 2 * len(without) > len(labels)
    owners = Counter(label.there[0] for label in labels if label.there)
    return [
        *remark(
            "warning" if most else "note",
            "images without a label file",
            [f"{label.image}: looked for in {label.source}" for label in without],
            "They count as background.",
        ),
        *remark(
            "warning",
            "images with two label files",
            [
                f"{path} is not read: {label.there[0]} is"
                for label in labels
                for path in label.there[1:]
            ],
            "Delete one of them.",
        ),
        *remark(
            "warning",
            "label files that belong to more than one image",
            [f"{path}: {count} images" for path, count in owners.items() if count > 1],
            "Images of one name with other extensions have the same objects then: rename them.",
        ),
    ]


def unread_remarks(
    places: Sequence[Path], labels: Sequence[Labels], files: LabelFiles
) -> list[Remark]:
    """Files that a person takes for part of the data set, and that are not read.

    Args:
        places: the folders that the split names; lists say themselves what they name.
        labels: of all images of the split.
        files: that found them.
    """
    owned = {path for label in labels for path in label.there}
    pictures: list[str] = []
    stems: defaultdict[Path, set[str]] = defaultdict(set)  # by folder of labels
    for folder, _, names in chain.from_iterable(map(os.walk, places)):
        parent = Path(folder)
        known = [name for name in names if name.lower().endswith(IMAGE_EXTENSIONS)]
        for name in set(names).difference(known):
            there, _ = files.find(parent / name)
            if there and there[0] not in owned and there[0] != parent / name:
                pictures.append(f"{parent / name}: its label file is {there[0]}")
        _, expected = files.find(parent / "a")
        if known and expected.parent != parent:
            stems[expected.parent].update(Path(name).stem for name in names)
    lonely = [
        str(folder / name)
        for folder, known_stems in stems.items()
        for name in files.label_names(folder)
        if Path(name).stem not in known_stems and name not in OTHER_LISTS
    ]
    return [
        *remark(
            "warning",
            "files with a label file that are no images by their name",
            sorted(pictures),
            f"They are not read: save them as one of {', '.join(IMAGE_EXTENSIONS)}.",
        ),
        *remark(
            "warning" if len(lonely) > len(owned) else "note",
            "label files without an image",
            sorted(lonely),
            "They are not read: if there are images for them, put those beside the others.",
        ),
    ]
