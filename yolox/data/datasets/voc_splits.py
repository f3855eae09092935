"""The splits of a VOC folder: the images that each names, and what is annotated in them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

from yolox.data.datasets.files import IMAGE_EXTENSIONS, names_in, path_inside, read_lines
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_ENTRY,
    IMAGE_MISSING,
    Problem,
    Record,
    Remark,
    remark,
)
from yolox.data.datasets.tables import RecordTable
from yolox.data.datasets.voc_xml import read_xml
from yolox.data.errors import DataError
from yolox.utils.progress import track
from yolox.utils.workers import in_processes, processes_to_use

SETS_FOLDER = Path("ImageSets") / "Main"
PART = 500  # annotations that a process reads at a time
MANY = 4 * PART  # fewer are read before several processes are started

Split = tuple[Path, str]  # the folder of a year, and the split's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitContent:
    """What one split says, in its order; see `RecordSet`."""

    records: RecordTable
    problems: tuple[Problem, ...]
    remarks: tuple[Remark, ...]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """An image that a split names.

    Attributes:
        name: of the record.
        image, source: the image and its annotation.
        number: place among the names of the split.
    """

    name: str
    image: Path
    source: Path
    number: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """What was read of some entries.

    Attributes:
        records: one for each entry.
        problems: with the number of the entry of each.
        outlined: which objects have the box of their outline.
    """

    records: RecordTable
    problems: list[tuple[int, Problem]]
    outlined: list[str]


def read_split(split: Split) -> SplitContent:
    """The images that a split names and their annotations, many of them by several processes.

    Raises DataError where there is no such split or it is empty; everything else that is wrong is
    among the problems.
    """
    folder, title = split[0], f"{split[0].name}/{split[1]}"
    images = _Images(folder / "JPEGImages")
    path = folder / SETS_FOLDER / f"{split[1]}.txt"
    lines = [images.name_of(line) for line in _split_lines(path)]
    problems: list[tuple[int, Problem]] = []
    entries: list[_Entry] = []
    for number, name in enumerate(dict.fromkeys(lines)):
        place = path_inside(Path(), name)
        if place is None:
            what = f"{name} is a path: expected the plain name of a file in JPEGImages"
            problems.append((number, Problem(kind=BAD_ENTRY, where=str(path), what=what)))
            continue
        image = images.find(place.as_posix())
        if image is None:
            what = f"not in {images.folder} (looked for {', '.join(IMAGE_EXTENSIONS)})"
            problems.append(
                (number, Problem(kind=IMAGE_MISSING, where=f"{name} ({title})", what=what))
            )
            continue
        own = image.relative_to(images.folder).with_suffix("").as_posix()
        entries.append(_Entry(own, image, folder / "Annotations" / f"{own}.xml", number))
    parts = _read(entries)
    problems += (problem for part in parts for problem in part.problems)
    twice = [f"{name} in {title}" for name, count in Counter(lines).items() if count > 1]
    return SplitContent(
        records=RecordTable.joined([part.records for part in parts]),
        problems=tuple(problem for _, problem in sorted(problems, key=lambda found: found[0])),
        remarks=(
            *remark("warning", "images named more than once", twice, "Each is read once."),
            *remark(
                "note",
                "objects without a <bndbox>",
                (case for part in parts for case in part.outlined),
                "They have the box around their outline; nothing to do.",
            ),
        ),
    )


def _read(entries: Sequence[_Entry]) -> list[_Part]:
    portions = [entries[start : start + PART] for start in range(0, len(entries), PART)]
    processes = processes_to_use() if len(entries) >= MANY else 1
    read = in_processes(_read_part, portions, processes)
    steps = track(_by_entry(read, portions), "Reading annotations", len(entries))
    return [part for part in steps if part is not None]


def _by_entry(
    parts: Iterable[_Part], portions: Iterable[Sequence[_Entry]]
) -> Iterator[_Part | None]:
    """Each part, and None for each entry of it but one: progress is told in images."""
    for part, portion in zip(parts, portions, strict=True):
        yield part
        yield from repeat(None, len(portion) - 1)


def _read_part(entries: Sequence[_Entry]) -> _Part:
    records: list[Record] = []
    problems: list[tuple[int, Problem]] = []
    outlined: list[str] = []
    for entry in entries:
        source = entry.source
        try:
            record, numbers = read_xml(source, entry.image)
            outlined += [f"{source}: object {number}" for number in numbers]
        except DataError as error:
            problem = Problem(kind=BAD_ANNOTATION, where=str(source), what=str(error))
            problems.append((entry.number, problem))
            record = Record(name=entry.name, image=entry.image, source=source)
        records.append(dataclasses.replace(record, name=entry.name))
    return _Part(records=RecordTable.of(records), problems=problems, outlined=outlined)


def _split_lines(path: Path) -> list[str]:
    """The lines of a split file, stripped, blank ones left out."""
    if not path.is_file():
        raise DataError(
            f"split file {path} is not there. Splits in that folder: "
            f"{names_in(path.parent, '*.txt')}. Name one of them in the image sets, or write "
            f"the file: one image name a line, without extension"
        )
    lines = read_lines(path)
    if not lines:
        raise DataError(f"split file {path} names no image: write one image name a line")
    return lines


class _Images:
    """The images of a folder by stem; extensions in any case, ``.jpg`` before others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rank = {ext: i for i, ext in enumerate(IMAGE_EXTENSIONS)}
        paths = folder.iterdir() if folder.is_dir() else iter(())
        images = [path for path in paths if path.suffix.lower() in rank]
        # last wins in a dict: the preferred extension, and the exact spelling, come last
        images.sort(key=lambda path: (-rank[path.suffix.lower()], path.name))
        self._exact = {path.stem: path for path in images}
        self._folded = {path.stem.lower(): path for path in images}
        self._below: dict[str, _Images] = {}

    def find(self, name: str) -> Path | None:
        """The image of a stem, which may be in a folder below."""
        below, slash, name = name.rpartition("/")
        if slash:
            folder = path_inside(self.folder, below)
            if folder is None:
                return None
            if below not in self._below:
                self._below[below] = _Images(folder)
            return self._below[below].find(name)
        return self._exact.get(name) or self._folded.get(name.lower())

    def name_of(self, line: str) -> str:
        """The image name in a split's line: all of it, or without a flag, folder or extension."""
        if self.find(line) is not None:
            return line
        name = re.sub(r"\s+(-1|0|1)$", "", line)  # the class splits of VOC: "name 1"
        whole = name.replace("\\", "/")
        if f"/{self.folder.name}/" in whole:  # a path to the image, from wherever
            name = whole.rpartition(f"/{self.folder.name}/")[2]
        stem, dot, extension = name.rpartition(".")
        if self.find(name) is None and f"{dot}{extension}".lower() in IMAGE_EXTENSIONS:
            return stem
        return name
