"""Pascal VOC: XML annotations, one folder a year, splits as lists of names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from yolox.data.datasets.build import (
    build_samples,
    checked_classes,
    class_list_fault,
    resolve_class_list,
)
from yolox.data.datasets.files import names_in, read_lines
from yolox.data.datasets.records import BAD_CLASS_LIST, Problem, RecordSet
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.datasets.tables import RecordTable
from yolox.data.datasets.voc_splits import SETS_FOLDER, Split, SplitContent, read_split
from yolox.data.errors import DataError

ImageSets = Sequence[tuple[str, str]]

DEFAULT_IMAGE_SETS: ImageSets = (("2007", "trainval"), ("2012", "trainval"))
CLASSES_FILE = "classes.txt"
_SPLIT_HINT = " (a split is named with its year, year/split)"


def resolve_classes(
    data_dir: str | Path,
    image_sets: ImageSets,
    classes: Sequence[str] | None = None,
    *,
    read: dict[Split, SplitContent] | None = None,
) -> tuple[str, ...]:
    """The class names of a VOC data set, in the order of the class indices.

    ``classes`` if given; else ``classes.txt`` in the data folder or in a VOC<year> folder, one
    name a line; else every name found in the annotations of the given splits, sorted.

    Args:
        data_dir: as for `VOCDetection`.
        image_sets: as for `VOCDetection`.
        classes: see above.
        read: where to put the splits that had to be read, for `read_voc`.

    Raises DataError if the list is empty or has a name twice, or where the data cannot be read.
    """
    if classes is not None:
        return checked_classes(classes)
    root, folders = _folders(Path(data_dir), image_sets)
    listed, faults = _listed_classes([Path(data_dir), root, *folders])
    if listed is None and not faults:
        contents = {split: read_split(split) for split in _splits(folders, image_sets)}
        names = resolve_class_list(_record_set(data_dir, image_sets, contents))
        if read is not None:
            read.update(contents)
        return names
    title = _title(folders, image_sets)
    alone = RecordSet(title=title, records=(), classes=listed, problems=tuple(faults))
    return resolve_class_list(alone)


def read_voc(
    data_dir: str | Path,
    image_sets: ImageSets,
    *,
    read: dict[Split, SplitContent] | None = None,
) -> RecordSet:
    """All annotations of some splits.

    Args:
        data_dir: as for `VOCDetection`.
        image_sets: as for `VOCDetection`.
        read: splits that `resolve_classes` read; those that are asked for are taken out of it, and
            not read again.

    Raises DataError for folders or split files that are not there; everything else that is wrong
    is among the problems.
    """
    _, folders = _folders(Path(data_dir), image_sets)
    known: dict[Split, SplitContent] = {} if read is None else read
    splits = dict.fromkeys(_splits(folders, image_sets))
    contents = {
        split: known.pop(split) if split in known else read_split(split) for split in splits
    }
    return _record_set(data_dir, image_sets, contents)


def _splits(folders: Sequence[Path], image_sets: ImageSets) -> list[Split]:
    return [(folder, split) for folder, (_, split) in zip(folders, image_sets, strict=True)]


def _record_set(
    data_dir: str | Path, image_sets: ImageSets, contents: Mapping[Split, SplitContent]
) -> RecordSet:
    root, folders = _folders(Path(data_dir), image_sets)
    parts = [contents[split] for split in _splits(folders, image_sets)]
    listed, faults = _listed_classes([Path(data_dir), root, *folders])
    return RecordSet(
        title=_title(folders, image_sets),
        records=RecordTable.joined([part.records for part in parts]),
        classes=listed,
        problems=(*(problem for part in parts for problem in part.problems), *faults),
        remarks=tuple(found for part in parts for found in part.remarks),
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
        read: see ``read_voc``.

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
        read: dict[Split, SplitContent] | None = None,
    ) -> None:
        classes, keep = _settle(target_transform or AnnotationTransform(), classes, keep_difficult)
        self.name = dataset_name
        self.data_dir, _ = _folders(Path(data_dir), image_sets)
        self.image_sets = tuple((str(year), str(split)) for year, split in image_sets)
        self.records = read_voc(data_dir, image_sets, read=read)
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
    wanted = [f"VOC{year}" if year else str(SETS_FOLDER) for year in years]
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
    return root if (root / SETS_FOLDER).is_dir() and not (year and other_year) else None


def _title(folders: Sequence[Path], image_sets: ImageSets) -> str:
    pairs = zip(folders, image_sets, strict=True)
    return ", ".join(f"{folder.name}/{split}" for folder, (_, split) in pairs)


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
