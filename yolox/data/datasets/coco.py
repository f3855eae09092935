"""COCO: one JSON file a split with images, categories and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolox.data.datadir import get_yolox_datadir
from yolox.data.datasets.build import build_samples, resolve_class_list
from yolox.data.datasets.coco_entries import (
    CocoImage,
    add_objects,
    read_categories,
    read_images,
)
from yolox.data.datasets.coco_files import (
    ANNOTATIONS,
    annotation_files,
    image_folders,
    place_images,
)
from yolox.data.datasets.files import is_file, names_in
from yolox.data.datasets.records import (
    BAD_ENTRY,
    Problem,
    Record,
    RecordSet,
    Remark,
    remark,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.errors import DataError, bullets
from yolox.utils.documents import DocumentError, read_data_json

NO_CATEGORY = -1


def read_coco(data_dir: str | Path, json_file: str | Path, name: str) -> RecordSet:
    """The images and objects of one JSON file; arguments as for `COCODataset`.

    Crowds, and what is to be ignored, are marked difficult. Raises DataError if the file is not
    there or is no COCO file, or if no image is found; everything else that is wrong is among the
    problems.
    """
    folder = Path(data_dir)
    files = _files(folder, json_file)
    return _records(_load(files[0]), files, folder, name)


class COCODataset(DetectionDataset):
    """A data set in the layout of COCO.

    Args:
        data_dir: the folder that holds ``annotations``; None is ``COCO`` in the folder of data
            sets, see ``get_yolox_datadir``.
        json_file: in ``annotations``, in ``data_dir``, or any path. It may lack annotations, as
            those of test images do.
        name: of the folder of images: ``data_dir/name``, ``data_dir/images/name``, the folder of a
            ``json_file`` that is not in ``annotations``, or ``name`` or ``images`` in it,
            ``data_dir/images`` or ``data_dir``: the one that holds the most of them.
        img_size: (height, width) of the network's input.
        preproc, cache, cache_type: see ``DetectionDataset``.
        classes: names by class index; None takes the file's categories, by rising id.

    Crowds and objects to ignore are difficult: evaluation neither rewards nor punishes them,
    training leaves them out. Numbers and flags may be given as text. An object without "bbox" has
    the box of its "segmentation". Image ids are the file's. Boxes are clipped to the image; those
    without area there are dropped, with one warning. Raises DataError for what cannot be used,
    listing all cases of a kind.
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
        files = _files(self.data_dir, json_file)
        data = _load(files[0])
        self.records = _records(data, files, self.data_dir, name)
        names = resolve_class_list(self.records, classes)
        categories, _ = read_categories(data["categories"], files[0])
        self._category_ids = {category: number for number, category in categories.items()}
        samples = build_samples(self.records, names)
        super().__init__(
            samples,
            names,
            img_size,
            preproc,
            cache,
            cache_type,
            train_difficult=self.records.learn_difficult,
        )

    @property
    def class_ids(self) -> list[int]:
        """Category id by class index, -1 for a class that is no category of the file."""
        return [self._category_ids.get(name, NO_CATEGORY) for name in self.class_names]


# -------------------------------------------------------------------------------- files and folders


def _files(data_dir: Path, json_file: str | Path) -> list[Path]:
    """The files that the name can mean, the one to read first. Raises DataError for none."""
    if data_dir.is_file():
        raise DataError(
            f"the data folder {data_dir} is a file: set data_dir to its folder {data_dir.parent}, "
            f"and name the file in train_ann or val_ann"
        )
    files = annotation_files(data_dir, json_file)
    if not files:
        place = data_dir / ANNOTATIONS
        place = place if place.is_dir() else data_dir
        there = (
            f"JSON files there: {names_in(place, '*.json' if place != data_dir else '**/*.json')}"
        )
        raise DataError(
            f"annotation file {data_dir / ANNOTATIONS / json_file} is not there. "
            f"{there if data_dir.is_dir() else f'Nor is the data folder {data_dir}'}. Expected "
            f"it in annotations of the data folder, or in the data folder: set data_dir and the "
            f"file's name (train_ann, val_ann) to what is there"
        )
    return files


def _load(path: Path) -> dict[str, Any]:
    """The JSON file. Raises DataError unless it has lists of images and categories."""
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


# ------------------------------------------------------------------------------------------ content


def _records(data: dict[str, Any], files: Sequence[Path], data_dir: Path, name: str) -> RecordSet:
    """What the first of the files says; the others are of the same name, and not read."""
    path = files[0]
    if not data["images"]:
        raise DataError(f"annotation file {path} names no image: 'images' is empty")
    problems: list[Problem] = []
    remarks = remark(
        "warning",
        "annotation files that the name could mean, too",
        map(str, files[1:]),
        f"{path} is read: give the whole path if another one is meant.",
    )
    categories, faults = read_categories(data["categories"], path)
    images, known = read_images(data["images"], path, problems)
    without = add_objects(data.get("annotations", []), images, known, categories, path, problems)
    folder, usable = data_dir, images
    if images:
        folder, usable, more = _place(images, image_folders(data_dir, name, path), problems)
        remarks += more
    return RecordSet(
        title=_title(path, data_dir),
        records=tuple(
            Record(
                name=image.name,
                image=folder / image.name,
                source=path,
                image_id=image_id,
                size=image.size,
                names=() if image.faulty else tuple(image.names),
                boxes=() if image.faulty else tuple(image.boxes),
                difficult=() if image.faulty else tuple(image.ignored),
            )
            for image_id, image in usable.items()
        ),
        classes=tuple(categories.values()),
        problems=(*faults, *problems),
        remarks=(
            *remarks,
            *remark(
                "note",
                "objects without a bbox",
                without,
                "They have the box of their segmentation; nothing to do.",
            ),
        ),
        form="xywh",
        learn_difficult=False,
    )


def _title(path: Path, data_dir: Path) -> str:
    """The file's name, with its folder where that is not the usual one."""
    if path.parent.name == ANNOTATIONS or not path.is_relative_to(data_dir):
        return path.name
    return path.relative_to(data_dir).as_posix()


def _place(
    images: Mapping[int, CocoImage], folders: Sequence[Path], problems: list[Problem]
) -> tuple[Path, dict[int, CocoImage], list[Remark]]:
    """The folder of the images, those that can be in it with their path there, and remarks."""
    written = [image.name for image in images.values()]
    folder, places, by_end = place_images(written, folders)
    usable: dict[int, CocoImage] = {}
    taken: set[str] = set()
    for (number, image), place in zip(images.items(), places, strict=True):
        if place is None or place in taken:
            what = f"file_name {place!r} is that of another entry, too"
            if place is None:
                what = f"file_name {image.name!r} leads out of the image folder"
            problems.append(Problem(kind=BAD_ENTRY, where=image.where, what=what))
        else:
            image.name = place
            taken.add(place)
            usable[number] = image
    first = next(iter(usable.values()), None)
    also = [f for f in folders if first and _other_file(f / first.name, folder / first.name)]
    return (
        folder,
        usable,
        [
            *remark(
                "note",
                "images found by the end of their file_name",
                [f"{written[i]}: {folder / (places[i] or '')}" for i in by_end],
                "The whole of it is not there: look at some of them on a sheet.",
            ),
            *remark(
                "warning",
                "other folders with images of these names",
                map(str, also),
                f"Those of {folder} are read: name another with train_name or val_name.",
            ),
        ],
    )


def _other_file(path: Path, read: Path) -> bool:
    return is_file(path) and is_file(read) and not path.samefile(read)
