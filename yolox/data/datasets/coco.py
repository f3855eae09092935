"""COCO: one JSON file a split with images, categories and boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from yolox.data.datadir import get_yolox_datadir
from yolox.data.datasets.build import build_samples, class_list_fault, resolve_class_list
from yolox.data.datasets.files import inside, is_file, names_in
from yolox.data.datasets.records import (
    ANNOTATION,
    CLASS_LIST,
    ENTRY,
    Problem,
    Record,
    RecordSet,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.errors import DataError, bullets
from yolox.utils.documents import DocumentError, read_data_json

Box = tuple[float, float, float, float]

NO_CATEGORY = -1


@dataclass(kw_only=True)
class _Image:
    """One entry of "images", and its objects as they are found."""

    name: str
    size: tuple[int, int] | None
    names: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    faulty: bool = False


def read_coco(data_dir: str | Path, json_file: str, name: str) -> RecordSet:
    """The images and objects of one JSON file; arguments as for `COCODataset`.

    Crowds are marked difficult. Raises DataError if the file is not there or is no COCO file, or if
    no image is found; everything else that is wrong is among the problems.
    """
    path = Path(data_dir) / "annotations" / json_file
    return _records(_load(path), path, Path(data_dir), name)


class COCODataset(DetectionDataset):
    """A data set in the layout of COCO.

    Args:
        data_dir: the folder that holds ``annotations``; None is ``COCO`` in the folder of data
            sets, see ``get_yolox_datadir``.
        json_file: in ``annotations``. It may lack annotations, as those of test images do.
        name: of the folder of images: ``data_dir/name``, ``data_dir/images/name``,
            ``data_dir/images`` or ``data_dir``, the first that holds any of them.
        img_size: (height, width) of the network's input.
        preproc, cache, cache_type: see ``DetectionDataset``.
        classes: names by class index; None takes the file's categories, by rising id.

    Crowds are difficult: evaluation neither rewards nor punishes them, training leaves them out.
    Image ids are the file's. Boxes are clipped to the image; those without area there are dropped,
    with one warning. Raises DataError for what cannot be used, listing all cases of a kind.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        json_file: str = "instances_train2017.json",
        name: str = "train2017",
        img_size: tuple[int, int] = (416, 416),
        preproc: Transform | None = None,
        cache: bool = False,
        cache_type: str = "ram",
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.data_dir = Path(get_yolox_datadir()) / "COCO" if data_dir is None else Path(data_dir)
        self.json_file = json_file
        self.name = name
        path = self.data_dir / "annotations" / json_file
        data = _load(path)
        self.records = _records(data, path, self.data_dir, name)
        names = resolve_class_list(self.records, classes)
        categories, _ = _categories(data["categories"], path)
        self._category_ids = {category: number for number, category in categories.items()}
        samples = build_samples(self.records, names)
        super().__init__(
            samples, names, img_size, preproc, cache, cache_type, train_difficult=False
        )

    @property
    def class_ids(self) -> list[int]:
        """Category id by class index, -1 for a class that is no category of the file."""
        return [self._category_ids.get(name, NO_CATEGORY) for name in self.class_names]


# -------------------------------------------------------------------------------- files and folders


def _load(path: Path) -> dict[str, Any]:
    """The JSON file. Raises DataError unless it has lists of images and categories."""
    if not is_file(path):
        data_dir = path.parent.parent
        folder = f"JSON files there: {names_in(path.parent, '*.json')}"
        raise DataError(
            f"annotation file {path} is not there. "
            f"{folder if data_dir.is_dir() else f'Nor is the data folder {data_dir}'}. Expected "
            f"annotations/{path.name} in the data folder, with the images beside annotations: set "
            f"data_dir and the file's name to what is there"
        )
    try:
        data = read_data_json(path)
    except OSError as error:
        raise DataError(f"annotation file {path} cannot be read ({error.strerror})") from None
    except DocumentError as error:
        raise DataError(f"annotation file {path} cannot be read ({error}): get it again") from None
    if not isinstance(data, dict):
        raise DataError(f"annotation file {path} holds a {type(data).__name__}: expected an object")
    keys = ["images", "categories", *(["annotations"] if "annotations" in data else [])]
    faults = [f"{key!r}: {_kind(data, key)}" for key in keys if not isinstance(data.get(key), list)]
    if faults:
        raise DataError(
            f"annotation file {path} is not in COCO's detection format; it has the keys "
            f"{', '.join(map(repr, data)) or 'none'}. Expected a list at each of:{bullets(faults)}"
        )
    return data


def _kind(data: Mapping[str, Any], key: str) -> str:
    return f"a {type(data[key]).__name__}" if key in data else "not there"


def _image_folder(data_dir: Path, name: str, images: Sequence[str]) -> Path:
    """The folder that holds any of the images. Raises DataError if none does."""
    folders = (data_dir / name, data_dir / "images" / name, data_dir / "images", data_dir)
    for folder in dict.fromkeys(folders):
        if folder.is_dir() and any(is_file(folder / image) for image in images):
            return folder
    raise DataError(
        f"none of the {len(images)} images, the first of which is {images[0]}, is there. Put them "
        f"into one of these folders, or name theirs:"
        f"{bullets([str(folder) for folder in dict.fromkeys(folders)])}"
    )


# ------------------------------------------------------------------------------------------ content


def _records(data: dict[str, Any], path: Path, data_dir: Path, name: str) -> RecordSet:
    if not data["images"]:
        raise DataError(f"annotation file {path} names no image: 'images' is empty")
    problems: list[Problem] = []
    categories, faults = _categories(data["categories"], path)
    images, known = _images(data["images"], path, problems)
    _add_objects(data.get("annotations", []), images, known, categories, path, problems)
    folder = (
        _image_folder(data_dir, name, [i.name for i in images.values()]) if images else data_dir
    )
    return RecordSet(
        title=path.name,
        records=tuple(
            Record(
                name=image.name,
                image=folder / image.name,
                source=path,
                image_id=image_id,
                size=image.size,
                names=() if image.faulty else tuple(image.names),
                boxes=() if image.faulty else tuple(image.boxes),
                difficult=() if image.faulty else tuple(image.crowd),
            )
            for image_id, image in images.items()
        ),
        classes=tuple(categories.values()),
        problems=(*faults, *problems),
    )


def _categories(entries: list[Any], path: Path) -> tuple[dict[int, str], list[Problem]]:
    """Names by category id, by rising id; and what is wrong with them."""
    found: dict[int, str] = {}
    faults: list[str] = []
    for i, entry in enumerate(entries):
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        number, name = fields.get("id"), fields.get("name")
        if not _is_id(number) or not isinstance(name, str) or not name.strip():
            faults.append(f"categories[{i}]: expected a whole number as id, and a name")
        elif number in found:
            faults.append(f"categories[{i}]: the id {number} is taken by {found[number]!r}")
        else:
            found[number] = name.strip()
    found = dict(sorted(found.items()))
    fault = class_list_fault(list(found.values())) if not faults else None
    faults += [f"categories: {fault}"] if fault else []
    return found, [Problem(kind=CLASS_LIST, where=str(path), what=what) for what in faults]


def _images(
    entries: list[Any], path: Path, problems: list[Problem]
) -> tuple[dict[int, _Image], set[int]]:
    """Images by id, in the order of the file; and all ids there are, of faulty entries, too."""
    images: dict[int, _Image] = {}
    known: set[int] = set()
    taken: set[str] = set()
    for i, entry in enumerate(entries):
        number: Any = entry.get("id") if isinstance(entry, dict) else None
        what, name = _image_fault(entry, known)
        if what is None and name in taken:
            what = f"file_name {name!r} is that of another entry, too"
        if what is not None:
            problems.append(Problem(kind=ENTRY, where=f"{path}: images[{i}]", what=what))
        else:
            images[number] = _Image(name=name, size=_size(entry))
            taken.add(name)
        if _is_id(number):
            known.add(number)
    return images, known


def _image_fault(entry: Any, known: set[int]) -> tuple[str | None, str]:
    """What is wrong with an entry of "images", None if nothing is; and the image's path."""
    if not isinstance(entry, dict):
        return "is not an object", ""
    number, name = entry.get("id"), entry.get("file_name")
    if not _is_id(number):
        return f"id is {number!r}: expected a whole number", ""
    if number in known:
        return f"id {number} is that of another entry, too", ""
    if not isinstance(name, str) or not name.strip():
        return f"file_name is {name!r}: expected a path below the image folder", ""
    place = inside(Path(), name)
    if place is None:
        return f"file_name {name!r} leads out of the image folder", ""
    return None, place.as_posix()


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the entry says, None if it does not."""
    try:
        height, width = int(entry["height"]), int(entry["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _add_objects(
    entries: list[Any],
    images: Mapping[int, _Image],
    known: set[int],
    categories: Mapping[int, str],
    path: Path,
    problems: list[Problem],
) -> None:
    """Put each annotation to its image; an image with an unusable one is marked faulty."""
    for i, entry in enumerate(entries):
        try:
            image_id, category = entry["image_id"], categories[entry["category_id"]]
            x, y, width, height = map(float, entry["bbox"])
            usable = image_id in known and isinstance(entry["bbox"], list)
            usable &= math.isfinite(x + y + width + height)
        except (KeyError, TypeError, ValueError, OverflowError):
            usable = False
        if not usable:
            where, image = f"{path}: annotations[{i}]", _image_of(entry, images)
            what = _object_fault(entry, known, categories)
            problems.append(Problem(kind=ANNOTATION, where=where, what=what))
            if image is not None:
                image.faulty = True
        elif image_id in images:  # the entry of another image may be faulty itself
            image = images[image_id]
            image.names.append(category)
            image.boxes.append((x, y, x + width, y + height))
            image.crowd.append(bool(entry.get("iscrowd")))


def _image_of(entry: Any, images: Mapping[int, _Image]) -> _Image | None:
    number = entry.get("image_id") if isinstance(entry, dict) else None
    return images.get(number) if isinstance(number, int) else None


def _object_fault(entry: Any, known: set[int], categories: Mapping[int, str]) -> str:
    """What is wrong with an annotation that cannot be used."""
    if not isinstance(entry, dict):
        return "is not an object"
    if not isinstance(entry.get("image_id"), int) or entry["image_id"] not in known:
        return f"image_id {entry.get('image_id')!r} is not among the images"
    if not isinstance(entry.get("category_id"), int) or entry["category_id"] not in categories:
        return f"category_id {entry.get('category_id')!r} is not among the categories"
    if entry.get("bbox") is None:
        return "has no bbox"
    return f"bbox is not four finite numbers, x, y, width, height: {str(entry['bbox'])[:80]}"
