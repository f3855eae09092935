"""From records to samples: strict where the readers are lenient."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from loguru import logger

from yolox.data.data_augment import has_area
from yolox.data.datasets.files import is_file
from yolox.data.datasets.known_classes import fold_name
from yolox.data.datasets.plausible import box_remarks
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_CLASS_LIST,
    BAD_ENTRY,
    IMAGE_BROKEN,
    IMAGE_MISSING,
    Problem,
    RecordSet,
    Remark,
    remark,
)
from yolox.data.datasets.sample import DetectionDataset
from yolox.data.datasets.tables import RecordTable, SampleTable
from yolox.data.decoding import DARK_BITS, bits_used, read_bytes
from yolox.data.errors import DataError, UnknownClassesError, bullets
from yolox.data.image_header import ImageError
from yolox.data.image_size import read_file_headers
from yolox.utils.progress import track

EDGE_TOLERANCE = 2.0  # pixels: conventions of where an image ends differ by as much
_MAX_SHOWN = 3
_ODD_NUMBERS = np.random.default_rng(0).integers(-(2**62), 2**62, 6) * 2 + 1
_MAX_SAMPLED_IMAGES = 4  # 16-bit images: they tell of what sort the others are

_SENTENCES = {
    IMAGE_MISSING: "{} images that the data names are not there. Add them, or take their names out "
    "of the split",
    IMAGE_BROKEN: "{} files are no images that can be decoded. Replace them, or take their names "
    "out of the split",
    BAD_ENTRY: "{} entries of images cannot be used. Correct them, or take them out of the split",
    BAD_ANNOTATION: "{} annotations cannot be used. Correct them, or take their images out of the "
    "split",
    BAD_CLASS_LIST: "{} class lists cannot be used. Correct them, or give the class list yourself",
}


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise one DataError with all problems, grouped by kind; do nothing if there is none."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_kind[problem.kind].append(f"{problem.where}: {problem.what}")
    if by_kind:
        parts = (_SENTENCES[k].format(len(v)) + ":" + bullets(v) for k, v in by_kind.items())
        raise DataError("\n".join(parts))


# ------------------------------------------------------------------------------------------ classes


def class_list_fault(names: Sequence[str]) -> str | None:
    """What is wrong with a list of class names, None if nothing is."""
    if not names:
        return "holds no class: name each one"
    if not all(names):
        return "holds an empty name: name each one"
    twice = [f"{name!r} ({count} times)" for name, count in Counter(names).items() if count > 1]
    return f"names classes more than once; keep one each: {', '.join(twice)}" if twice else None


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names that a caller gave, stripped. Raises DataError unless each is named once."""
    if isinstance(classes, str):
        raise DataError(
            f"the classes argument is one string, {classes!r}: expected a list of names"
        )
    names = tuple(str(name).strip() for name in classes)
    fault = class_list_fault(names)
    if fault:
        raise DataError(f"the classes argument {fault}")
    return names


def resolve_class_list(records: RecordSet, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """The class names in the order of the class indices.

    ``classes`` if given; else those that the data states; else every name in the annotations,
    sorted. Raises DataError for a list that is empty or has a name twice, and for annotations that
    cannot be read where the names must come from them.
    """
    if classes is not None:
        return checked_classes(classes)
    raise_problems(problem for problem in records.problems if problem.kind == BAD_CLASS_LIST)
    if records.classes is not None:
        return records.classes
    raise_problems(records.problems)
    table = RecordTable.of(records.records)
    names = tuple(sorted({table.class_names[i] for i in np.unique(table.classes)}))
    if not names:
        raise DataError(
            f"the annotations of {records.title} hold no object, so there is no class to learn: "
            f"give the class list, or splits with objects"
        )
    logger.info(
        f"{len(names)} classes found in the annotations of {records.title}: {', '.join(names)}"
    )
    return names


def _check_names(table: RecordTable, classes: tuple[str, ...]) -> None:
    """Raises UnknownClassesError if an object's class is not in the list."""
    numbers = np.bincount(table.classes, minlength=len(table.class_names)).tolist()
    counts = {name: n for name, n in zip(table.class_names, numbers, strict=True) if n}
    unknown = sorted(set(counts) - set(classes))
    if not unknown:
        return
    near = {fold_name(name): name for name in classes}
    items = []
    for name in unknown:
        hint = near.get(fold_name(name))
        items.append(f"{name!r}: {counts[name]} objects" + (f"; meant {hint!r}?" if hint else ""))
    found = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    raise UnknownClassesError(
        unknown,
        f"{len(unknown)} classes in the annotations are not in the class list "
        f"[{', '.join(classes)}]",
        "Add them to the list or correct the annotations",
        f"; left so, their objects would count as background:{bullets(items)}\n"
        f"All classes found: {found}",
    )


# ------------------------------------------------------------------------------------------ samples


def build_samples(
    records: RecordSet, classes: tuple[str, ...], keep_difficult: bool = True
) -> SampleTable:
    """Samples of all images, in the order of the records.

    Boxes are clipped to the image; those without area there are dropped, with one warning, and so
    are difficult ones unless ``keep_difficult``. An image that the data does not number has its
    position as its id.

    Raises DataError, listing all cases of a kind, for no images, problems of the records, classes
    that are not in the list, and images that are missing or cannot be decoded. (Problems of the
    class list itself are left to `resolve_class_list`: a caller who gives a list needs none.)
    """
    raise_problems(problem for problem in records.problems if problem.kind != BAD_CLASS_LIST)
    table = RecordTable.of(records.records)
    _check_names(table, classes)
    if not len(table):
        raise DataError(f"{records.title} names no image: name at least one")
    sizes = _true_sizes(records, table)
    whole, limits = _pixel_boxes(table, sizes)
    boxes = np.clip(whole, 0, limits).astype(np.float32)
    kept = has_area(boxes)
    form, first = records.form, records.first_pixel
    found = [*box_remarks(whole, limits, form, first), *_list_remarks(records), *_copies(table)]
    _tell(records.title, [*records.remarks, *found])
    cut = kept & (np.abs(whole - boxes).max(axis=1, initial=0) > EDGE_TOLERANCE)
    _warn_cut(table, first, cut)
    _warn_dropped(table, first, kept)
    _warn_of_nothing(records, kept, table.difficult)
    if not keep_difficult:
        kept &= ~table.difficult
    index = {name: i for i, name in enumerate(classes)}
    indices = np.array([index.get(name, -1) for name in table.class_names], np.int32)
    position = np.arange(len(table), dtype=np.int64)
    return SampleTable(
        names=table.names,
        images=table.images,
        folder=table.folder,
        ids=np.where(table.numbered, table.ids, position),
        sizes=sizes,
        ends=np.concatenate([[0], np.cumsum(kept)])[table.ends],
        boxes=boxes[kept],
        classes=indices[table.classes[kept]] if len(indices) else table.classes[kept],
        difficult=table.difficult[kept],
    )


def _list_remarks(records: RecordSet) -> list[Remark]:
    """What is wrong with a class list that another one is taken in place of."""
    faults = (f"{p.where}: {p.what}" for p in records.problems if p.kind == BAD_CLASS_LIST)
    advice = "the classes that were given are taken, but objects can be of another one than meant"
    return remark("warning", "faults of the class list", faults, f"{advice}: correct the list")


def _copies(table: RecordTable) -> list[Remark]:
    """Objects that an image has twice, by class and corners."""
    image_N = np.repeat(np.arange(len(table)), table.counts())
    suspects = alike(image_N, table.classes, table.boxes)
    cases = []
    for index in np.unique(image_N[suspects]):
        row = table[int(index)]
        if copies := len(row.names) - len({*zip(row.names, row.boxes, strict=True)}):
            cases.append(f"{row.name}: {copies}")
    advice = "each of them counts, so one detection leaves the other missed: remove the copies"
    return remark("warning", "images with objects that are there twice", cases, advice)


def alike(
    image_N: npt.NDArray[np.int64],
    classes_N: npt.NDArray[np.int32],
    boxes_N4: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Objects that may be there twice, bool (N,): all that are, and hardly any other.

    Args:
        image_N: the image of each.
        classes_N: its class.
        boxes_N4: its corners.
    """
    # Equal objects have equal sums of products with odd numbers.
    parts_N6 = np.column_stack([image_N, classes_N, (boxes_N4 + 0.0).view(np.int64)])
    sums_N = parts_N6 @ _ODD_NUMBERS
    sums, counts = np.unique(sums_N, return_counts=True)
    return np.isin(sums_N, sums[counts > 1])


def _true_sizes(records: RecordSet, table: RecordTable) -> npt.NDArray[np.int32]:
    """Height and width of each image (n, 2), from the image. Raises DataError with all without."""
    sizes = np.zeros((len(table), 2), np.int32)
    problems: list[Problem] = []
    resized: list[str] = []
    cut_off: list[str] = []
    deep: list[Path] = []
    headers = read_file_headers(len(table), table.image)
    for i, header in enumerate(track(headers, "Reading image headers", len(table))):
        if isinstance(header, ImageError):
            image = table.image(i)
            there = is_file(image)
            what = header.what if there else f"named by {records.title}"
            kind = IMAGE_BROKEN if there else IMAGE_MISSING
            problems.append(Problem(kind=kind, where=str(image), what=what))
            continue
        sizes[i] = size = header.size
        stated = tuple(table.sizes[i].tolist())
        if stated not in ((0, 0), size):
            resized.append(f"{table.names[i]}: {stated} in the annotation, {size} in truth")
        if header.cut_off:
            cut_off.append(str(table.image(i)))
        if header.deep:
            deep.append(table.image(i))
    raise_problems(problems)
    _warn_dark(records, deep)
    if cut_off:
        logger.warning(
            f"{len(cut_off)} JPEGs are truncated: they are decoded as far as they go, and what is "
            f"missing is grey. `yolox.data.doctor` says how much:{bullets(cut_off)}"
        )
    if resized:
        logger.warning(
            f"the size (height, width) that {len(resized)} annotations give is not their image's; "
            f"the image counts, and boxes are taken to be in its pixels:{bullets(resized)}"
        )
    return sizes


def _pixel_boxes(
    table: RecordTable, sizes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The boxes (n, 4) of all images in pixels, and what to clip them to."""
    limits = np.repeat(sizes[:, [1, 0, 1, 0]].astype(np.float64), table.counts(), axis=0)
    relative = np.repeat(table.relative, table.counts())
    boxes = table.boxes.copy()
    boxes[relative] *= limits[relative]
    return boxes, limits


# --------------------------------------------------------------------------------- what is told


def _tell(title: str, remarks: Iterable[Remark]) -> None:
    for found in remarks:
        logger.log(
            "WARNING" if found.severity == "warning" else "INFO",
            f"{title}: {found.title} ({len(found.cases):,}). {found.advice}{bullets(found.cases)}",
        )


def _described(table: RecordTable, first_pixel: int, chosen: npt.NDArray[np.bool_]) -> list[str]:
    """The chosen ones of all objects, with their corners as the files give them."""
    found = []
    for number in np.flatnonzero(chosen):
        corners = ", ".join(f"{value + first_pixel:g}" for value in table.boxes[number].tolist())
        name = table.class_names[table.classes[number]]
        found.append(f"{table.names[table.image_of(int(number))]}: {name} ({corners})")
    return found


def _warn_cut(table: RecordTable, first_pixel: int, cut: npt.NDArray[np.bool_]) -> None:
    if cut.any():
        cases = bullets(_described(table, first_pixel, cut), _MAX_SHOWN)
        logger.warning(
            f"{cut.sum()} boxes reach more than {EDGE_TOLERANCE:g} pixels over the edge of their "
            f"image and are cut there:{cases}"
        )


def _warn_dropped(table: RecordTable, first_pixel: int, kept: npt.NDArray[np.bool_]) -> None:
    if not kept.all():
        dropped = _described(table, first_pixel, ~kept)
        logger.warning(
            f"{len(dropped)} boxes have no area inside their image and are left out:"
            f"{bullets(dropped)}"
        )


def _warn_of_nothing(
    records: RecordSet, kept: npt.NDArray[np.bool_], difficult: npt.NDArray[np.bool_]
) -> None:
    """Where no object is left that AP can be measured on."""
    if not len(kept):
        first = records.records[0]
        logger.warning(
            f"no image of {records.title} has an object; those of {first.name} were looked for in "
            f"{first.source}"
        )
    elif not (kept & ~difficult).any():
        logger.warning(
            f"no object of {records.title} counts, so that there is no AP on it: of "
            f"{len(kept):,}, {(~kept).sum():,} have no area, {(kept & difficult).sum():,} are "
            "crowds, difficult or to be ignored"
        )


def _warn_dark(records: RecordSet, deep: Sequence[Path]) -> None:
    """Where 16-bit images use their lower bits alone; some of them are decoded to tell."""
    dark = []
    for image in deep[:: max(1, len(deep) // _MAX_SAMPLED_IMAGES)][:_MAX_SAMPLED_IMAGES]:
        bits = bits_used(read_bytes(image))
        if bits is not None and bits <= DARK_BITS:
            dark.append(f"{image}: {bits} bits of 16")
    if dark:
        logger.warning(
            f"16-bit images of {records.title} use their lower bits alone, and are nearly black to "
            f"the network, which sees value / 256. `yolox.data.doctor` looks at all of them, and "
            f"says what to do:{bullets(dark)}"
        )


# ------------------------------------------------------------------------------- nothing to learn


def require_objects(dataset: DetectionDataset) -> None:
    """Raises DataError if no image of the data set has an object to learn, and says why."""
    samples = dataset.samples
    if any(len(dataset.labels(index)) for index in range(len(samples))):
        return
    records = getattr(dataset, "records", None)
    title = f"{records.title}: " if isinstance(records, RecordSet) else ""
    left = sum(len(sample.boxes) for sample in samples)
    there = RecordTable.of(records.records) if isinstance(records, RecordSet) else None
    annotated = (len(there.classes) if there else 0) or left
    why = "no object is annotated in them"
    if annotated:
        why = (
            f"of {annotated:,} objects, {annotated - left:,} were left out and {left:,} are crowds "
            "or to be ignored"
        )
    raise DataError(
        f"{title}the {len(samples):,} training images have nothing to learn: {why}. Check that "
        "this is the split that was meant, and that its annotations are read as they are meant: "
        "`yolox.data.doctor` shows"
    )
