"""Pascal VOC: XML annotations, one folder a year, splits as lists of names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from loguru import logger

from yolox.data.datasets.build import (
    build_samples,
    checked_classes,
    class_list_fault,
    resolve_class_list,
)
from yolox.data.datasets.files import IMAGE_EXTENSIONS, names_in, read_lines
from yolox.data.datasets.records import (
    ANNOTATION,
    CLASS_LIST,
    ENTRY,
    MISSING,
    Problem,
    Record,
    RecordSet,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.errors import DataError
from yolox.utils.documents import MOST_XML, DocumentError, read_bounded

ImageSets = Sequence[tuple[str, str]]

DEFAULT_IMAGE_SETS: ImageSets = (("2007", "trainval"), ("2012", "trainval"))
CLASSES_FILE = "classes.txt"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


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
    root = _devkit(Path(data_dir), image_sets)
    listed, faults = _listed_classes(Path(data_dir), root, image_sets)
    if listed is None and not faults:
        return resolve_class_list(read_voc(data_dir, image_sets))
    alone = RecordSet(title=_title(image_sets), records=(), classes=listed, problems=tuple(faults))
    return resolve_class_list(alone)


def read_voc(data_dir: str | Path, image_sets: ImageSets) -> RecordSet:
    """All annotations of some splits; ``data_dir`` and ``image_sets`` as for `VOCDetection`.

    Raises DataError for folders or split files that are not there; everything else that is wrong
    is among the problems.
    """
    root = _devkit(Path(data_dir), image_sets)
    records: list[Record] = []
    problems: list[Problem] = []
    for year, split in image_sets:
        _read_split(root / f"VOC{year}", split, records, problems)
    listed, faults = _listed_classes(Path(data_dir), root, image_sets)
    return RecordSet(
        title=_title(image_sets),
        records=tuple(records),
        classes=listed,
        problems=(*problems, *faults),
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
        data_dir: the VOCdevkit folder (holding VOC<year>/{Annotations,ImageSets/Main,JPEGImages})
            or the folder that holds VOCdevkit.
        image_sets: (year, split) pairs, read one after the other.
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
        self.data_dir = _devkit(Path(data_dir), image_sets)
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


def _devkit(data_dir: Path, image_sets: ImageSets) -> Path:
    """The folder that holds VOC<year>, for the data folder as a person gave it."""
    if not image_sets:
        raise DataError("no image sets given: expected pairs such as ('2007', 'trainval')")
    years = [f"VOC{year}" for year, _ in image_sets]
    candidates = [data_dir, data_dir / "VOCdevkit"]
    for root in candidates:
        if any((root / year).is_dir() for year in years):
            missing = sorted({year for year in years if not (root / year).is_dir()})
            if missing:
                raise DataError(
                    f"{root} has no {', '.join(missing)}; it has {names_in(root, 'VOC*')}. Put "
                    f"the year there, or leave it out of the image sets"
                )
            return root
    if not data_dir.is_dir():
        problem = f"the data folder {data_dir} is not there"
    else:
        problem = f"the data folder {data_dir} holds no {' or '.join(dict.fromkeys(years))}"
        for root in candidates:
            if any(root.glob("VOC*")):
                problem += f"; {root} has {names_in(root, 'VOC*')}"
    raise DataError(
        f"{problem}. Expected a VOCdevkit folder such as {data_dir / 'VOCdevkit'} with "
        f"{years[0]}/{{Annotations,ImageSets/Main,JPEGImages}} in it: put the data there, set "
        f"data_dir to where it is, or make the built-in demo data with `make demo`"
    )


def _title(image_sets: ImageSets) -> str:
    return ", ".join(f"VOC{year}/{split}" for year, split in image_sets)


def _read_split(folder: Path, split: str, records: list[Record], problems: list[Problem]) -> None:
    """Append what one split names, in its order, and what is wrong with it."""
    images = _Images(folder / "JPEGImages")
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    lines = _split_lines(path)
    names = list(dict.fromkeys(images.name_of(line) for line in lines))
    if len(names) < len(lines):
        logger.warning(
            f"{folder.name}/{split} names {len(lines) - len(names)} images more than once; "
            f"each is read once"
        )
    for name in names:
        if "/" in name or "\\" in name:
            what = f"{name} is a path: expected the plain name of a file in JPEGImages"
            problems.append(Problem(kind=ENTRY, where=str(path), what=what))
            continue
        image = images.find(name)
        if image is None:
            what = f"not in {images.folder} (looked for {', '.join(IMAGE_EXTENSIONS)})"
            where = f"{name} ({folder.name}/{split})"
            problems.append(Problem(kind=MISSING, where=where, what=what))
            continue
        source = folder / "Annotations" / f"{image.stem}.xml"
        try:
            records.append(_parse(source, image))
        except DataError as error:
            problems.append(Problem(kind=ANNOTATION, where=str(source), what=str(error)))
            records.append(Record(name=image.stem, image=image, source=source))


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

    def find(self, name: str) -> Path | None:
        return self._exact.get(name) or self._folded.get(name.lower())

    def name_of(self, line: str) -> str:
        """The image name in a split's line: all of it, or without a flag or an extension."""
        if self.find(line) is not None:
            return line
        name = re.sub(r"\s+(-1|0|1)$", "", line)  # the class splits of VOC: "name 1"
        stem, dot, extension = name.rpartition(".")
        if self.find(name) is None and f"{dot}{extension}".lower() in IMAGE_EXTENSIONS:
            return stem
        return name


# -------------------------------------------------------------------------------------- annotations


def _parse(source: Path, image: Path) -> Record:
    """One XML file. Raises DataError with what is wrong in it (without the path)."""
    try:
        root: Element = fromstring(read_bounded(source, MOST_XML))
    except FileNotFoundError:
        raise DataError("the file is not there") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
    except DocumentError as error:
        raise DataError(f"cannot be read: {error}") from None
    except DefusedXmlException:
        raise DataError("defines XML entities, which are refused as unsafe") from None
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"is not well-formed XML ({error})") from None
    names: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    difficult: list[bool] = []
    for number, obj in enumerate(root.findall("object"), start=1):
        name = (obj.findtext("name") or "").strip()
        if not name:
            raise DataError(f"object {number} has no <name>")
        names.append(name)
        boxes.append(_parse_box(obj, number))
        difficult.append((obj.findtext("difficult") or "0").strip() == "1")
    return Record(
        name=image.stem,
        image=image,
        source=source,
        size=_parse_size(root),
        names=tuple(names),
        boxes=tuple(boxes),
        difficult=tuple(difficult),
    )


def _parse_box(obj: Element, number: int) -> tuple[float, float, float, float]:
    bndbox = obj.find("bndbox")
    if bndbox is None:
        raise DataError(f"object {number} has no <bndbox>")
    # by one pass over the children: findtext four times is slower than the rest of the parse
    texts = {child.tag: child.text for child in bndbox}
    try:
        x1, y1, x2, y2 = (float(texts[corner] or "") - 1 for corner in _CORNERS)
    except KeyError as error:
        raise DataError(f"object {number}: <bndbox> has no <{error.args[0]}>") from None
    except ValueError as error:
        raise DataError(f"object {number}: <bndbox> is not four numbers ({error})") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise DataError(f"object {number}: <bndbox> is not four finite numbers")
    return x1, y1, x2, y2


def _parse_size(root: Element) -> tuple[int, int] | None:
    """(height, width) as the file says, None if it does not."""
    try:
        height = int(float(root.findtext("size/height") or 0))
        width = int(float(root.findtext("size/width") or 0))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


# ------------------------------------------------------------------------------------------ classes


def _listed_classes(
    data_dir: Path, root: Path, image_sets: ImageSets
) -> tuple[tuple[str, ...] | None, list[Problem]]:
    """The classes of the ``classes.txt`` files beside the data, None if there is none to be used.

    Problems are lists that are faulty in themselves, or differ from the first one.
    """
    folders = [data_dir, root, *(root / f"VOC{year}" for year, _ in image_sets)]
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
            problems.append(Problem(kind=CLASS_LIST, where=str(path), what=fault))
    return (first[1] if first and not problems else None), problems
