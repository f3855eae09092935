"""YOLO text: one label file an image, lines of class and box in fractions, a data.yaml above."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.data.datasets.build import build_samples, class_list_fault, resolve_class_list
from yolox.data.datasets.files import IMAGE_EXTENSIONS, inside, is_file, read_lines
from yolox.data.datasets.records import (
    ANNOTATION,
    CLASS_LIST,
    ENTRY,
    Problem,
    Record,
    RecordSet,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.errors import DataError
from yolox.utils.documents import DocumentError, read_yaml

Box = tuple[float, float, float, float]

SPLITS = ("train", "val", "test")
_ROUNDING = 1e-3  # how far a value may be outside [0, 1]


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What a data.yaml says.

    Attributes:
        path: the file.
        root: the data set's folder.
        entries: folders and lists of images of the split.
        names: class names by index.
    """

    path: Path
    root: Path
    entries: tuple[str, ...]
    names: tuple[str, ...]


def read_yolo(data_yaml: str | Path, split: str) -> RecordSet:
    """The images and labels of one split; arguments as for `YOLODataset`.

    Raises DataError for a data.yaml that says too little, and for folders or lists of images that
    are not there; everything else that is wrong is among the problems.
    """
    config = _config(Path(data_yaml), split)
    problems: list[Problem] = []
    images = [
        image
        for entry in config.entries
        for image in _entry_images(_resolve(entry, config), config, problems)
    ]
    unique = list(dict.fromkeys(images))
    if len(unique) < len(images):
        logger.warning(
            f"{split} of {config.path} names {len(images) - len(unique)} images more than once; "
            f"each is read once"
        )
    records = tuple(_record(image, config, problems) for image in unique)
    if records and not any(record.names for record in records) and not problems:
        logger.warning(
            f"no image of {split} of {config.path} has an object; the labels of {unique[0]} were "
            f"looked for in {records[0].source}"
        )
    fault = class_list_fault(config.names)
    if fault:
        problems.append(Problem(kind=CLASS_LIST, where=f"{config.path}: names", what=fault))
    return RecordSet(
        title=f"{config.path.name}/{split}",
        records=records,
        classes=config.names,
        problems=tuple(problems),
    )


class YOLODataset(DetectionDataset):
    """A data set of images with one text file of labels each.

    Args:
        data_yaml: file with ``train``, ``val``, ``test``: each a folder of images, a text file
            that lists images, or several of those; ``names``: a list, or a mapping from 0, 1, ...;
            ``path``: the data set's folder, from the file's own if relative, and that one if not
            given; ``nc``: the number of classes, if given.
        split: "train", "val" or "test".
        img_size: (height, width) of the network's input.
        preproc, cache, cache_type: see ``DetectionDataset``.
        classes: names by class index, which must hold those of the file that occur; None takes the
            file's.

    Folders and lists may be given as absolute paths; relative ones, and every image of a list, must
    lie in the data set's folder. A leading ``../`` that would leave it is left out where the path
    is there without, for some exporters write the paths so. The labels of ``images/a.jpg`` are in
    ``labels/a.txt`` (the last folder called images counts) or, without such a folder, beside the
    image; an image without that file is background. A line is ``class cx cy width height`` in
    fractions of the image, or ``class x y x y x y ...``, a polygon, whose bounding box is taken.

    Boxes are clipped to the image; those without area there are dropped, with one warning. Raises
    DataError for what cannot be used, listing all cases of a kind.
    """

    def __init__(
        self,
        data_yaml: str | Path,
        split: str,
        img_size: tuple[int, int] = (416, 416),
        preproc: Transform | None = None,
        cache: bool = False,
        cache_type: str = "ram",
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.data_yaml = Path(data_yaml)
        self.split = split
        self.records = read_yolo(data_yaml, split)
        names = resolve_class_list(self.records, classes)
        samples = build_samples(self.records, names)
        super().__init__(samples, names, img_size, preproc, cache, cache_type)


# ---------------------------------------------------------------------------------------- data.yaml


def _config(path: Path, split: str) -> _Config:
    if split not in SPLITS:
        raise DataError(f"split is {split!r}: expected one of {', '.join(SPLITS)}")
    content = _load(path)
    entries = content.get(split)
    entries = entries if isinstance(entries, list) else [entries]
    if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise DataError(
            f"{path} names no images for {split} (it says {content.get(split)!r}; it has the keys "
            f"{', '.join(map(str, content))}). Expected a folder of images, a text file that lists "
            f"images, or a list of those"
        )
    folder = content.get("path")
    if folder is not None and not isinstance(folder, str):
        raise DataError(f"{path}: path is {folder!r}: expected a folder, or no such key")
    root = _normal(path.absolute().parent / (folder or ""))
    if not root.is_dir():
        raise DataError(
            f"{path}: the folder {root} is not there (path: {folder}). Write where the data set "
            f"lies, from the folder of {path.name}, or take the line out if it lies there"
        )
    names = _names(content.get("names"), path)
    count = content.get("nc", len(names))
    if count != len(names):
        raise DataError(f"{path}: nc is {count!r}, but names are {len(names)}: mend one of them")
    return _Config(path=path, root=root, entries=tuple(entries), names=names)


def _load(path: Path) -> dict[Any, Any]:
    try:
        content = read_yaml(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): expected a data.yaml with train, val and "
            f"names; give the path of the data set's"
        ) from None
    except DocumentError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is no mapping: expected the keys train, val and names")
    return content


def _names(names: Any, path: Path) -> tuple[str, ...]:
    """The class names by index. Raises DataError unless they are text, for 0, 1, ... each."""
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(
                f"{path}: names has the indices {', '.join(map(str, names))}: expected 0 to "
                f"{len(names) - 1}, each once"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(
            f"{path}: names is {names!r}: expected a list of class names, or a mapping from 0, 1, "
            f"... to them"
        )
    # unquoted, YAML reads no, on and 007 as something else than these letters
    odd = [repr(name) for name in names if not isinstance(name, str)]
    if odd:
        raise DataError(f"{path}: names holds {', '.join(odd[:10])}: put names into quotes")
    return tuple(name.strip() for name in names)


# ------------------------------------------------------------------------------------------- images


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _resolve(entry: str, config: _Config) -> Path:
    """The folder or list of images that a split names. Raises DataError if it is not there."""
    below = entry.replace("\\", "/")
    if Path(entry).is_absolute():
        place: Path | None = _normal(Path(entry))
    else:
        place = inside(config.root, below) if _normal(Path(below)) != Path() else config.root
        while place is None and below.startswith("../"):
            below = below[3:]
            place = inside(config.root, below)
    if place is None or not (place.is_dir() or is_file(place)):
        why = "leads out of the data set's folder" if place is None else "is not there"
        raise DataError(
            f"{config.path}: {entry!r} {why}. Relative paths are taken from {config.root} and must "
            f"stay in it: mend the entry, set path to the data set's folder, or write an absolute "
            f"path"
        )
    return place


def _entry_images(place: Path, config: _Config, problems: list[Problem]) -> list[Path]:
    """The images of a folder (and those in it), by name, or of a list, in its order."""
    if place.is_dir():
        images = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(place)
            for name in names
            if name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")
        )
        if not images:
            raise DataError(
                f"{place} holds no image ({', '.join(IMAGE_EXTENSIONS)}): put the images there, or "
                f"name their folder in {config.path}"
            )
        return images
    lines = read_lines(place)
    if not lines:
        raise DataError(f"{place} names no image: write one path a line")
    # lists name images from the data set's folder or from their own
    own = place.parent if place.is_relative_to(config.root) else config.root
    first = inside(config.root, lines[0])
    base = config.root if first is None or is_file(first) else own
    roots = (config.root, config.root.resolve())
    images = []
    for line in lines:
        image = _normal(Path(line)) if Path(line).is_absolute() else inside(base, line)
        if image is None or "\0" in line or not any(map(image.is_relative_to, roots)):
            what = (
                f"{line!r} leads out of {config.root}; `path` in {config.path} may be a wider one"
            )
            problems.append(Problem(kind=ENTRY, where=str(place), what=what))
        else:
            images.append(image)
    return images


# ------------------------------------------------------------------------------------------- labels


def _record(image: Path, config: _Config, problems: list[Problem]) -> Record:
    """One image with its labels; without objects if a line of them cannot be used."""
    source = _label_file(image)
    within = image.is_relative_to(config.root)
    names: list[str] = []
    boxes: list[Box] = []
    faults: list[tuple[str, str]] = []
    for number, line in enumerate(_label_lines(source, faults), start=1):
        values = line.split()
        if not values:
            continue
        try:
            index, box = _parse(values, len(config.names))
        except DataError as error:
            faults.append((f"{source}:{number}", str(error)))
            continue
        names.append(config.names[index])
        boxes.append(box)
    problems += [Problem(kind=ANNOTATION, where=where, what=what) for where, what in faults]
    return Record(
        name=image.relative_to(config.root).as_posix() if within else str(image),
        image=image,
        source=source,
        names=() if faults else tuple(names),
        boxes=() if faults else tuple(boxes),
        difficult=() if faults else (False,) * len(names),
        relative=True,
    )


def _label_file(image: Path) -> Path:
    """``.../images/x/a.jpg`` -> ``.../labels/x/a.txt``, by the last folder called images."""
    parts = list(image.parts[:-1])
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, f"{image.stem}.txt")


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


def _parse(values: Sequence[str], classes: int) -> tuple[int, Box]:
    """Class index and box (x1 y1 x2 y2, fractions) of a line. Raises DataError if it has none."""
    try:
        index, *numbers = map(float, values)
    except ValueError as error:
        raise DataError(f"is not all numbers ({error})") from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise DataError(
            f"has {len(values)} numbers: expected a class and 4 of a box, or a class and the x y "
            f"of at least 3 corners"
        )
    if not (0 <= index < classes and index == int(index)):
        raise DataError(f"class {values[0]}: expected a whole number from 0 to {classes - 1}")
    if not all(-_ROUNDING <= number <= 1 + _ROUNDING for number in numbers):
        raise DataError("is not all fractions: expected 0 to 1 after the class")
    if len(numbers) > 4:
        xs, ys = numbers[::2], numbers[1::2]
        return int(index), (min(xs), min(ys), max(xs), max(ys))
    x, y, width, height = numbers
    return int(index), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
