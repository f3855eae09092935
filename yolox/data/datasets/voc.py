"""Pascal VOC: XML annotations, one folder a year, splits as lists of names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from loguru import logger

from yolox.data.data_augment import clip_boxes, has_area
from yolox.data.datasets.sample import DetectionDataset, Sample, Transform
from yolox.data.errors import DataError, bullets
from yolox.data.image_size import read_image_size

ImageSets = Sequence[tuple[str, str]]

DEFAULT_IMAGE_SETS: ImageSets = (("2007", "trainval"), ("2012", "trainval"))
CLASSES_FILE = "classes.txt"
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One line of a split."""

    name: str
    image: Path
    annotation: Path


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    """What one XML file says; boxes 0-based and as written otherwise."""

    size: tuple[int, int] | None
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    difficult: tuple[bool, ...]


def resolve_classes(
    data_dir: str | Path, image_sets: ImageSets, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The class names of a VOC data set, in the order of the class indices.

    ``classes`` if given; else ``classes.txt`` in the data folder or in a VOC<year> folder, one
    name a line; else every name found in the annotations of the given splits, sorted.

    Raises DataError if the list is empty or has a name twice, or where the data cannot be read.
    """
    if classes is not None:
        return _checked_classes(classes, "the classes argument")
    root = _devkit(Path(data_dir), image_sets)
    listed = _listed_classes(Path(data_dir), root, image_sets)
    if listed is not None:
        return listed
    return _found_classes(_parse_all(_entries(root, image_sets)), root)


class VOCDetection(DetectionDataset):
    """A data set in the layout of Pascal VOC.

    Args:
        data_dir: the VOCdevkit folder (holding VOC<year>/{Annotations,ImageSets/Main,JPEGImages})
            or the folder that holds VOCdevkit.
        image_sets: (year, split) pairs, read one after the other.
        img_size: (height, width) of the network's input.
        preproc: see ``DetectionDataset``.
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
        classes: Sequence[str] | None = None,
        keep_difficult: bool = True,
    ) -> None:
        self.data_dir = _devkit(Path(data_dir), image_sets)
        self.image_sets = tuple((str(year), str(split)) for year, split in image_sets)
        entries = _entries(self.data_dir, image_sets)
        annotations = _parse_all(entries)
        if classes is not None:
            names = _checked_classes(classes, "the classes argument")
        else:
            names = _listed_classes(Path(data_dir), self.data_dir, image_sets) or _found_classes(
                annotations, self.data_dir
            )
        _check_names(annotations, names)
        samples = _samples(entries, annotations, names, keep_difficult)
        super().__init__(samples, names, img_size, preproc)


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
                    f"{root} has no {', '.join(missing)}; it has {_names_in(root, 'VOC*')}. Put "
                    f"the year there, or leave it out of the image sets"
                )
            return root
    if not data_dir.is_dir():
        problem = f"the data folder {data_dir} is not there"
    else:
        problem = f"the data folder {data_dir} holds no {' or '.join(dict.fromkeys(years))}"
        for root in candidates:
            if any(root.glob("VOC*")):
                problem += f"; {root} has {_names_in(root, 'VOC*')}"
    raise DataError(
        f"{problem}. Expected a VOCdevkit folder such as {data_dir / 'VOCdevkit'} with "
        f"{years[0]}/{{Annotations,ImageSets/Main,JPEGImages}} in it: put the data there, set "
        f"data_dir to where it is, or make the built-in demo data with `make demo`"
    )


def _names_in(folder: Path, pattern: str) -> str:
    names = sorted(path.name for path in folder.glob(pattern))
    return ", ".join(names[:20]) or "none"


def _entries(root: Path, image_sets: ImageSets) -> list[_Entry]:
    """All lines of all splits, in order. Raises DataError for splits or images not there."""
    entries: list[_Entry] = []
    missing: list[str] = []
    for year, split in image_sets:
        folder = root / f"VOC{year}"
        images = _Images(folder / "JPEGImages")
        lines = _split_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
        names = list(dict.fromkeys(images.name_of(line) for line in lines))
        if len(names) < len(lines):
            logger.warning(
                f"{folder.name}/{split} names {len(lines) - len(names)} images more than once; "
                f"each is read once"
            )
        for name in names:
            image = images.find(name)
            if image is None:
                missing.append(f"{name} ({folder.name}/{split})")
                continue
            annotation = folder / "Annotations" / f"{image.stem}.xml"
            entries.append(_Entry(name=image.stem, image=image, annotation=annotation))
    if missing:
        raise DataError(
            f"{len(missing)} images that a split names are not in JPEGImages of {root} (looked "
            f"for {', '.join(_EXTENSIONS)}). Add them, or take the names out of the split:"
            f"{bullets(missing)}"
        )
    return entries


def _split_lines(path: Path) -> list[str]:
    """The lines of a split file, stripped, blank ones left out."""
    if not path.is_file():
        raise DataError(
            f"split file {path} is not there. Splits in that folder: "
            f"{_names_in(path.parent, '*.txt')}. Name one of them in the image sets, or write "
            f"the file: one image name a line, without extension"
        )
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"split file {path} names no image: write one image name a line")
    outside = [line for line in lines if "/" in line or "\\" in line]
    if outside:
        raise DataError(
            f"split file {path} has {len(outside)} lines that are paths. Expected plain names of "
            f"files in JPEGImages, without folder:{bullets(outside)}"
        )
    return lines


class _Images:
    """The images of a folder by stem; extensions in any case, ``.jpg`` before others."""

    def __init__(self, folder: Path) -> None:
        rank = {ext: i for i, ext in enumerate(_EXTENSIONS)}
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
        if self.find(name) is None and f"{dot}{extension}".lower() in _EXTENSIONS:
            return stem
        return name


# -------------------------------------------------------------------------------------- annotations


def _parse_all(entries: Iterable[_Entry]) -> list[_Annotation]:
    """The annotations of all entries. Raises DataError with all that cannot be used."""
    annotations: list[_Annotation] = []
    problems: list[str] = []
    for entry in entries:
        try:
            annotations.append(_parse(entry.annotation))
        except DataError as error:
            problems.append(f"{entry.annotation}: {error}")
    if problems:
        raise DataError(
            f"{len(problems)} annotations cannot be used. Mend them, or take their images out of "
            f"the split:{bullets(problems)}"
        )
    return annotations


def _parse(path: Path) -> _Annotation:
    """One XML file. Raises DataError with what is wrong in it (without the path)."""
    try:
        root: Element = fromstring(path.read_bytes())
    except FileNotFoundError:
        raise DataError("the file is not there") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
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
    return _Annotation(
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


def _checked_classes(classes: Sequence[str], where: str) -> tuple[str, ...]:
    if isinstance(classes, str):
        raise DataError(f"{where} is one string, {classes!r}: expected a list of names")
    names = tuple(str(name).strip() for name in classes)
    twice = [f"{name!r} ({count} times)" for name, count in Counter(names).items() if count > 1]
    if not names or not all(names):
        raise DataError(f"{where} holds {'an empty name' if names else 'no class'}: name each one")
    if twice:
        raise DataError(f"{where} names classes more than once; keep one each:{bullets(twice)}")
    return names


def _listed_classes(data_dir: Path, root: Path, image_sets: ImageSets) -> tuple[str, ...] | None:
    """The classes of the ``classes.txt`` files beside the data, None if there is none."""
    folders = [data_dir, root, *(root / f"VOC{year}" for year, _ in image_sets)]
    found: dict[Path, tuple[str, ...]] = {}
    for path in dict.fromkeys(folder / CLASSES_FILE for folder in folders):
        if path.is_file():
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
            found[path] = _checked_classes([line for line in lines if line], str(path))
    if len(set(found.values())) > 1:
        raise DataError(
            "the class lists beside the data differ; make them equal or keep one:"
            + bullets([f"{path}: {', '.join(names)}" for path, names in found.items()])
        )
    return next(iter(found.values()), None)


def _found_classes(annotations: Iterable[_Annotation], root: Path) -> tuple[str, ...]:
    names = tuple(sorted({name for annotation in annotations for name in annotation.names}))
    if not names:
        raise DataError(
            f"the annotations of the given splits in {root} hold no object, so there is no class "
            f"to learn: give the class list, or splits with objects"
        )
    logger.info(f"{len(names)} classes found in the annotations of {root}: {', '.join(names)}")
    return names


def _check_names(annotations: Iterable[_Annotation], classes: tuple[str, ...]) -> None:
    """Raises DataError if an object's class is not in the list."""
    counts = Counter(name for annotation in annotations for name in annotation.names)
    unknown = sorted(set(counts) - set(classes))
    if not unknown:
        return
    near = {_spelling(name): name for name in classes}
    items = []
    for name in unknown:
        hint = near.get(_spelling(name))
        items.append(f"{name!r}: {counts[name]} objects" + (f"; meant {hint!r}?" if hint else ""))
    found = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    raise DataError(
        f"{len(unknown)} classes in the annotations are not in the class list "
        f"[{', '.join(classes)}]. Add them to the list or mend the annotations; left so, their "
        f"objects would count as background:{bullets(items)}\nAll classes found: {found}"
    )


def _spelling(name: str) -> str:
    """A name without what people spell differently: case, spaces, hyphens."""
    return re.sub(r"[\s_-]+", "", name).casefold()


# ------------------------------------------------------------------------------------------ samples


def _samples(
    entries: Sequence[_Entry],
    annotations: Sequence[_Annotation],
    classes: tuple[str, ...],
    keep_difficult: bool,
) -> list[Sample]:
    class_index = {name: i for i, name in enumerate(classes)}
    samples: list[Sample] = []
    broken: list[str] = []
    dropped: list[str] = []
    resized: list[str] = []
    for image_id, (entry, annotation) in enumerate(zip(entries, annotations, strict=True)):
        size = read_image_size(entry.image)
        if size is None:
            broken.append(str(entry.image))
            continue
        if annotation.size not in (None, size):
            resized.append(f"{entry.name}: {annotation.size} in the annotation, {size} in truth")
        boxes = np.array(annotation.boxes, dtype=np.float32).reshape(-1, 4)
        boxes = clip_boxes(boxes, (0, 0), (size[1], size[0]))
        difficult = np.array(annotation.difficult, dtype=np.bool_)
        kept = has_area(boxes)
        dropped += [f"{entry.name}: {_where(annotation, int(i))}" for i in np.flatnonzero(~kept)]
        if not keep_difficult:
            kept &= ~difficult
        indices = np.array([class_index[name] for name in annotation.names], dtype=np.int64)
        fields: dict[str, Any] = {"image_id": image_id, "name": entry.name, "path": entry.image}
        fields |= {"height": size[0], "width": size[1], "boxes": boxes[kept]}
        samples.append(Sample(**fields, classes=indices[kept], difficult=difficult[kept]))
    if broken:
        raise DataError(
            f"{len(broken)} files are no images that can be decoded. Replace them, or take their "
            f"names out of the split:{bullets(broken)}"
        )
    if dropped:
        logger.warning(
            f"{len(dropped)} boxes have no area inside their image and are left out:"
            f"{bullets(dropped)}"
        )
    if resized:
        logger.warning(
            f"the <size> (height, width) of {len(resized)} annotations is not their image's; the "
            f"image counts, and boxes are taken to be in its pixels:{bullets(resized)}"
        )
    return samples


def _where(annotation: _Annotation, i: int) -> str:
    corners = ", ".join(f"{value + 1:g}" for value in annotation.boxes[i])
    return f"{annotation.names[i]} ({corners})"
