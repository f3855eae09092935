"""YOLO text: one label file an image, lines of class and box in fractions, a data.yaml above."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolox.data.datasets.build import build_samples, class_list_fault, resolve_class_list
from yolox.data.datasets.files import IMAGE_EXTENSIONS, is_file, names_in, path_inside, read_lines
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_CLASS_LIST,
    BAD_ENTRY,
    Problem,
    RecordSet,
    Remark,
    remark,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.datasets.tables import RecordTable
from yolox.data.datasets.values import as_whole
from yolox.data.datasets.yolo_labels import (
    OTHER_LISTS,
    LabelFiles,
    Labels,
    file_remarks,
    kind_remarks,
    labelled_records,
    read_labels,
    unread_remarks,
)
from yolox.data.datasets.yolo_lines import Declared, Lines
from yolox.data.errors import DataError
from yolox.utils.documents import DocumentError, read_yaml
from yolox.utils.progress import track

SPLITS = ("train", "val", "test")
_TASKS = {
    "detect": "detect",
    "detection": "detect",
    "segment": "segment",
    "segmentation": "segment",
    "pose": "pose",
    "keypoints": "pose",
    "obb": "obb",
}


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What a data.yaml says.

    Attributes:
        path: the file.
        root: the data set's folder.
        entries: folders and lists of images of the split.
        names: class names by index.
        declared: what it says of the labels.
    """

    path: Path
    root: Path
    entries: tuple[str, ...]
    names: tuple[str, ...]
    declared: Declared


def read_yolo(data_yaml: str | Path, split: str) -> RecordSet:
    """The images and labels of one split; arguments as for `YOLODataset`.

    Raises DataError for a data.yaml that says too little, and for folders or lists of images that
    are not there; everything else that is wrong is among the problems.
    """
    config = _config(Path(data_yaml), split)
    problems: list[Problem] = []
    places = [_resolve(entry, config) for entry in config.entries]
    images = [image for place in places for image in _entry_images(place, config, problems)]
    unique = list(dict.fromkeys(images))
    twice = [str(path) for path, count in Counter(images).items() if count > 1]
    lines, files = Lines(), LabelFiles(config.root)
    labels = [read_labels(image, files, lines) for image in track(unique, "Reading labels")]
    kinds, doubt = lines.kinds(config.declared)
    if doubt:
        problems.append(Problem(kind=BAD_ANNOTATION, where=str(config.path), what=doubt))
    records = labelled_records(labels, kinds, config.root, config.names, problems)
    fault = class_list_fault(config.names)
    if fault:
        problems.append(Problem(kind=BAD_CLASS_LIST, where=f"{config.path}: names", what=fault))
    return RecordSet(
        title=f"{config.path.name}/{split}",
        records=RecordTable.of(records),
        classes=config.names,
        problems=tuple(problems),
        remarks=(
            *remark("warning", "images named more than once", twice, "Each is read once."),
            *file_remarks(labels),
            *unread_remarks([place for place in places if place.is_dir()], labels, files),
            *kind_remarks(labels, kinds),
            *_list_remarks(labels, config),
        ),
        form="xyxy" if any(kinds[n].hull for n in lines.counts if n in kinds) else "cxcywh",
    )


def yolo_classes(data_yaml: str | Path, split: str) -> tuple[str, ...]:
    """The class names that a data.yaml states, without reading labels; arguments as `YOLODataset`.

    Raises DataError for a data.yaml that says too little.
    """
    return _config(Path(data_yaml), split).names


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
    ``labels/a.txt`` (only folders below the data set's count) or beside the image; an image without
    such a file is background.

    A line is ``class cx cy width height`` in fractions of the image, a confidence behind it or not;
    ``class x y x y x y ...``, a polygon or an oriented box, whose bounding box is taken; or a box
    and keypoints, of which the box is taken. ``kpt_shape`` or ``task`` of the file say which, or
    all lines of the split together; see `Lines.kinds`. What they were taken for is logged.

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
        raise DataError(f"{path}: nc is {count!r}, but names are {len(names)}: correct one of them")
    return _Config(
        path=path, root=root, entries=tuple(entries), names=names, declared=_declared(content, path)
    )


def _declared(content: dict[Any, Any], path: Path) -> Declared:
    """What the file says of its labels. Raises DataError for keypoints of another shape."""
    shape, task = content.get("kpt_shape"), content.get("task")
    keypoints = None
    if shape is not None:
        numbers = [as_whole(value) for value in shape] if isinstance(shape, list) else []
        if len(numbers) != 2 or not numbers[0] or numbers[0] < 1 or numbers[1] not in (2, 3):
            raise DataError(
                f"{path}: kpt_shape is {shape!r}: expected the number of keypoints and 2 (x y) or "
                f"3 (x y visibility), as [17, 3]"
            )
        keypoints = (numbers[0], numbers[1])
    return Declared(keypoints=keypoints, task=_TASKS.get(str(task).strip().casefold()))


def _load(path: Path) -> dict[Any, Any]:
    try:
        content = read_yaml(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): expected a data.yaml with train, val and "
            f"names; give the path of the data set's. YAML files there: "
            f"{names_in(path.parent, '*.y*ml')}"
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
        place = path_inside(config.root, below) if _normal(Path(below)) != Path() else config.root
        while place is None and below.startswith("../"):
            below = below[3:]
            place = path_inside(config.root, below)
    if place is None or not (place.is_dir() or is_file(place)):
        why = "leads out of the data set's folder" if place is None else "is not there"
        raise DataError(
            f"{config.path}: {entry!r} {why}. Relative paths are taken from {config.root} and must "
            "stay in it: correct the entry, set path to the data set's folder, or write an "
            "absolute path"
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
    first = path_inside(config.root, lines[0])
    base = config.root if first is None or is_file(first) else own
    roots = (config.root, config.root.resolve())
    images = []
    for line in lines:
        image = _normal(Path(line)) if Path(line).is_absolute() else path_inside(base, line)
        if image is None or "\0" in line or not any(map(image.is_relative_to, roots)):
            what = (
                f"{line!r} leads out of {config.root}; 'path' in {config.path} may be a wider one"
            )
            problems.append(Problem(kind=BAD_ENTRY, where=str(place), what=what))
        else:
            images.append(image)
    return images


# ---------------------------------------------------------------------------------------- remarks


def _list_remarks(labels: Sequence[Labels], config: _Config) -> list[Remark]:
    """Other lists of the same classes in another order, which the labels may follow."""
    folders = dict.fromkeys([config.root, *(label.source.parent for label in labels)])
    cases = []
    for path in (folder / name for folder in folders for name in OTHER_LISTS):
        if not is_file(path):
            continue
        try:
            names = read_lines(path)
        except DataError:
            continue
        if sorted(names) == sorted(config.names) and tuple(names) != config.names:
            cases.append(f"{path}: {', '.join(names[:10])}{', …' if len(names) > 10 else ''}")
    return remark(
        "warning",
        "lists of the same classes in another order",
        cases,
        f"The order of {config.path.name} counts: if the labels were written by the other one, "
        "copy it there.",
    )
