"""Pascal VOC: XML annotations, one folder a year, splits as lists of names."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolox.data.datasets.build import (
    build_samples,
    checked_classes,
    class_list_fault,
    resolve_class_list,
)
from yolox.data.datasets.files import IMAGE_EXTENSIONS, names_in, path_inside, read_lines
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_CLASS_LIST,
    BAD_ENTRY,
    IMAGE_MISSING,
    Problem,
    Record,
    RecordSet,
    Remark,
    remark,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.datasets.voc_xml import read_xml
from yolox.data.errors import DataError
from yolox.utils.progress import track

ImageSets = Sequence[tuple[str, str]]

DEFAULT_IMAGE_SETS: ImageSets = (("2007", "trainval"), ("2012", "trainval"))
CLASSES_FILE = "classes.txt"
_SETS_FOLDER = Path("ImageSets") / "Main"
_SPLIT_HINT = " (a split is named with its year, year/split)"


def resolve_classes(
    data_dir: str | Path, image_sets: ImageSets, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The class names of a VOC data set, in the order of the class indices.

    ``classes`` if given; else ``classes.txt`` in the data folder or in a VOC<year> folder, one
    name a line; else every name found in the annotations of the given splits, sorted.

    Raises DataError if the list is empty or has a name twice, or where the data cannot be read.
    """
    if classes is not None:
        return checked_classes(classes)
    root, folders = _folders(Path(data_dir), image_sets)
    listed, faults = _listed_classes([Path(data_dir), root, *folders])
    if listed is None and not faults:
        return resolve_class_list(read_voc(data_dir, image_sets))
    title = _title(folders, image_sets)
    alone = RecordSet(title=title, records=(), classes=listed, problems=tuple(faults))
    return resolve_class_list(alone)


def read_voc(data_dir: str | Path, image_sets: ImageSets) -> RecordSet:
    """All annotations of some splits; ``data_dir`` and ``image_sets`` as for `VOCDetection`.

    Raises DataError for folders or split files that are not there; everything else that is wrong
    is among the problems.
    """
    root, folders = _folders(Path(data_dir), image_sets)
    records: list[Record] = []
    problems: list[Problem] = []
    remarks: list[Remark] = []
    for folder, (_, split) in zip(folders, image_sets, strict=True):
        remarks += _read_split(folder, split, records, problems)
    listed, faults = _listed_classes([Path(data_dir), root, *folders])
    return RecordSet(
        title=_title(folders, image_sets),
        records=tuple(records),
        classes=listed,
        problems=(*problems, *faults),
        remarks=tuple(remarks),
        first_pixel=1,
    )


class AnnotationTransform:
    """How objects are taken from annotations, in the form that Exp files give it.

    Args:
        class_to_ind: class index by name, the class list of the data set; None leaves the list to
            the data.
        keep_difficult: False to leave out objects marked difficult.

    Raises DataError unless the indices are 0, 1, ..., each once.
    """

    def __init__(
        self, class_to_ind: Mapping[str, int] | None = None, keep_difficult: bool = True
    ) -> None:
        self.class_to_ind = class_to_ind
        self.keep_difficult = keep_difficult
        if class_to_ind is not None and sorted(class_to_ind.values()) != [
            *range(len(class_to_ind))
        ]:
            raise DataError(
                f"class_to_ind: expected the indices 0 to {len(class_to_ind) - 1}, each for one "
                f"class, got {dict(class_to_ind)}"
            )

    def class_names(self) -> tuple[str, ...] | None:
        """The class names by index, None where the data decides."""
        by_name = self.class_to_ind
        return None if by_name is None else tuple(sorted(by_name, key=by_name.__getitem__))


class VOCDetection(DetectionDataset):
    """A data set in the layout of Pascal VOC.

    Args:
        data_dir: the VOCdevkit folder (holding VOC<year>/{Annotations,ImageSets/Main,JPEGImages}),
            the folder that holds VOCdevkit, or one that holds these three itself.
        image_sets: (year, split) pairs, read one after the other. In a folder that is no VOC<year>
            but holds a split itself, the year may be anything, as "".
        img_size: (height, width) of the network's input.
        preproc: see ``DetectionDataset``.
        target_transform: may give the class list and leave out difficult objects, too.
        dataset_name: kept as ``name``.
        cache, cache_type: see ``DetectionDataset``.
        classes: see ``resolve_classes``.
        keep_difficult: False to leave out objects marked difficult.

    Boxes are the file's less 1, clipped to the image; those without area there are dropped, with
    one warning. Raises DataError for what cannot be used, listing all cases of a kind.
    """

    def __init__(
        self,
        data_dir: str | Path,
        image_sets: ImageSets = DEFAULT_IMAGE_SETS,
        img_size: tuple[int, int] = (416, 416),
        preproc: Transform | None = None,
        target_transform: AnnotationTransform | None = None,
        dataset_name: str = "VOC0712",
        cache: bool = False,
        cache_type: str = "ram",
        *,
        classes: Sequence[str] | None = None,
        keep_difficult: bool = True,
    ) -> None:
        classes, keep = _settle(target_transform or AnnotationTransform(), classes, keep_difficult)
        self.name = dataset_name
        self.data_dir, _ = _folders(Path(data_dir), image_sets)
        self.image_sets = tuple((str(year), str(split)) for year, split in image_sets)
        self.records = read_voc(data_dir, image_sets)
        names = resolve_class_list(self.records, classes)
        samples = build_samples(self.records, names, keep)
        super().__init__(samples, names, img_size, preproc, cache, cache_type)


def _settle(
    transform: AnnotationTransform, classes: Sequence[str] | None, keep_difficult: bool
) -> tuple[Sequence[str] | None, bool]:
    """The class list and ``keep_difficult`` that a transform and the arguments give together."""
    if not isinstance(transform, AnnotationTransform) or callable(transform):
        raise DataError(
            f"target_transform is a {type(transform).__name__}: expected an AnnotationTransform "
            f"without code of its own; for other annotations, make a DetectionDataset of Samples"
        )
    named = transform.class_names()
    if named is not None and classes is not None and named != tuple(classes):
        raise DataError(
            f"target_transform gives the classes {', '.join(named)}, the classes argument "
            f"{', '.join(classes)}: give one of them"
        )
    return (classes if named is None else named), keep_difficult and transform.keep_difficult


# ------------------------------------------------------------------------------- folders and splits


def _folders(data_dir: Path, image_sets: ImageSets) -> tuple[Path, list[Path]]:
    """The folder above those of the image sets, for the data folder as given; and theirs."""
    if not image_sets:
        raise DataError("no image sets given: expected pairs such as ('2007', 'trainval')")
    years = [str(year) for year, _ in image_sets]
    candidates = [data_dir, data_dir / "VOCdevkit"]
    for root in candidates:
        folders = [_year_folder(root, year) for year in years]
        if any(folder is not None for folder in folders):
            missing = sorted({y for y, f in zip(years, folders, strict=True) if f is None})
            if missing:
                lacks = ", ".join(f"VOC{y}" if y else "ImageSets/Main of its own" for y in missing)
                raise DataError(
                    f"{root} has no {lacks}; it has {names_in(root, 'VOC*')}. Put the year there, "
                    f"or leave it out of the image sets{_SPLIT_HINT if '' in missing else ''}"
                )
            return root, [folder for folder in folders if folder is not None]
    wanted = [f"VOC{year}" if year else str(_SETS_FOLDER) for year in years]
    if not data_dir.is_dir():
        problem = f"the data folder {data_dir} is not there"
    else:
        problem = f"the data folder {data_dir} holds no {' or '.join(dict.fromkeys(wanted))}"
        for root in candidates:
            if any(root.glob("VOC*")):
                problem += f"; {root} has {names_in(root, 'VOC*')}"
                problem += "" if all(years) else _SPLIT_HINT
    devkit = data_dir if data_dir.name == "VOCdevkit" else data_dir / "VOCdevkit"
    raise DataError(
        f"{problem}. Expected a VOCdevkit folder such as {devkit} with "
        f"VOC{years[0] or '2007'}/{{Annotations,ImageSets/Main,JPEGImages}} in it, or these three "
        f"in the data folder: put the data there, set data_dir to where it is, or begin with the "
        f"built-in data of `yolox.data.generate_demo_dataset`"
    )


def _year_folder(root: Path, year: str) -> Path | None:
    """The folder of a year: VOC<year>, or the root where it is that or has no year; else None."""
    if year and (root / f"VOC{year}").is_dir():
        return root / f"VOC{year}"
    other_year = re.fullmatch(r"VOC\d{4}", root.name) and root.name != f"VOC{year}"
    return root if (root / _SETS_FOLDER).is_dir() and not (year and other_year) else None


def _title(folders: Sequence[Path], image_sets: ImageSets) -> str:
    pairs = zip(folders, image_sets, strict=True)
    return ", ".join(f"{folder.name}/{split}" for folder, (_, split) in pairs)


def _read_split(
    folder: Path, split: str, records: list[Record], problems: list[Problem]
) -> list[Remark]:
    """Append what one split names, in its order, and what is wrong with it."""
    images = _Images(folder / "JPEGImages")
    path = folder / _SETS_FOLDER / f"{split}.txt"
    lines = [images.name_of(line) for line in _split_lines(path)]
    names = dict.fromkeys(lines)
    outlined: list[str] = []
    for name in track(names, "Reading annotations"):
        place = path_inside(Path(), name)
        if place is None:
            what = f"{name} is a path: expected the plain name of a file in JPEGImages"
            problems.append(Problem(kind=BAD_ENTRY, where=str(path), what=what))
            continue
        image = images.find(place.as_posix())
        if image is None:
            what = f"not in {images.folder} (looked for {', '.join(IMAGE_EXTENSIONS)})"
            where = f"{name} ({folder.name}/{split})"
            problems.append(Problem(kind=IMAGE_MISSING, where=where, what=what))
            continue
        own = image.relative_to(images.folder).with_suffix("").as_posix()
        source = folder / "Annotations" / f"{own}.xml"
        try:
            record, numbers = read_xml(source, image)
            outlined += [f"{source}: object {number}" for number in numbers]
        except DataError as error:
            problems.append(Problem(kind=BAD_ANNOTATION, where=str(source), what=str(error)))
            record = Record(name=own, image=image, source=source)
        records.append(dataclasses.replace(record, name=own))
    title = f"{folder.name}/{split}"
    twice = [f"{name} in {title}" for name, count in Counter(lines).items() if count > 1]
    return [
        *remark("warning", "images named more than once", twice, "Each is read once."),
        *remark(
            "note",
            "objects without a <bndbox>",
            outlined,
            "They have the box around their outline; nothing to do.",
        ),
    ]


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


# ------------------------------------------------------------------------------------------ classes


def _listed_classes(
    folders: Sequence[Path],
) -> tuple[tuple[str, ...] | None, list[Problem]]:
    """The classes of the ``classes.txt`` files of folders, None if there is none to be used.

    Problems are lists that are faulty in themselves, or differ from the first one.
    """
    first: tuple[Path, tuple[str, ...]] | None = None
    problems: list[Problem] = []
    for path in dict.fromkeys(folder / CLASSES_FILE for folder in folders):
        if not path.is_file():
            continue
        names = tuple(read_lines(path))
        fault = class_list_fault(names)
        first = first or (path, names)
        if fault is None and names != first[1]:
            fault = f"[{', '.join(names)}] differs from [{', '.join(first[1])}] in {first[0]}"
        if fault is not None:
            problems.append(Problem(kind=BAD_CLASS_LIST, where=str(path), what=fault))
    return (first[1] if first and not problems else None), problems
