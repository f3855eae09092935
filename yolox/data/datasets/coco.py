"""COCO: one JSON file a split with images, categories and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolox.data.datadir import get_yolox_datadir
from yolox.data.datasets.build import build_samples, resolve_class_list
from yolox.data.datasets.coco_content import CocoContent, read_content
from yolox.data.datasets.coco_entries import read_categories
from yolox.data.datasets.coco_files import (
    ANNOTATIONS,
    annotation_files,
    image_folders,
    place_images,
)
from yolox.data.datasets.files import is_file, names_in
from yolox.data.datasets.records import (
    BAD_ANNOTATION,
    BAD_ENTRY,
    Problem,
    RecordSet,
    Remark,
    remark,
)
from yolox.data.datasets.sample import DetectionDataset, Transform
from yolox.data.datasets.tables import RecordTable, Strings
from yolox.data.datasets.values import as_whole
from yolox.data.errors import DataError, bullets
from yolox.utils.documents import DocumentError, read_data_json
from yolox.utils.json_stream import NotStreamedError
from yolox.utils.memory import give_back_memory

NO_CATEGORY = -1


def read_coco(data_dir: str | Path, json_file: str | Path, name: str) -> RecordSet:
    """The images and objects of one JSON file; arguments as for `COCODataset`.

    Crowds, and what is to be ignored, are marked difficult. Raises DataError if the file is not
    there or is no COCO file, or if no image is found; everything else that is wrong is among the
    problems.
    """
    folder = Path(data_dir)
    files = _files(folder, json_file)
    return _records(_load(files[0]), files, folder, name)[0]


def coco_classes(data_dir: str | Path, json_file: str | Path) -> tuple[str, ...]:
    """The class names that one JSON file states; arguments as for `COCODataset`.

    No image is looked for. Raises DataError if the file is not there or is no COCO file.
    """
    path = _files(Path(data_dir), json_file)[0]
    return tuple(read_categories(_load(path).categories, path)[0].values())


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
        self.records, categories = _records(_load(files[0]), files, self.data_dir, name)
        names = resolve_class_list(self.records, classes)
        self._category_ids = {category: number for number, category in categories.items()}
        samples = build_samples(self.records, names)
        give_back_memory()  # what was read took more than what is left of it
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


def _load(path: Path) -> CocoContent:
    """The JSON file. Raises DataError unless it has lists of images and categories."""
    try:
        with suppress(NotStreamedError):
            return read_content(path)
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
    content = CocoContent()
    for key in keys:
        content.add(key, data[key])
    return content


def _kind(data: Mapping[str, Any], key: str) -> str:
    return f"a {type(data[key]).__name__}" if key in data else "not there"


# ------------------------------------------------------------------------------------------ content


def _records(
    content: CocoContent, files: Sequence[Path], data_dir: Path, name: str
) -> tuple[RecordSet, dict[int, str]]:
    """What the first of the files says, and its categories; the others of its name are not read."""
    path = files[0]
    if not content.image_entries:
        raise DataError(f"annotation file {path} names no image: 'images' is empty")
    remarks = remark(
        "warning",
        "annotation files that the name could mean, too",
        map(str, files[1:]),
        f"{path} is read: give the whole path if another one is meant.",
    )
    categories, faults = read_categories(content.categories, path)
    usable_N, object_faults = content.faults(categories)
    problems = [
        *(_problem(BAD_ENTRY, path, "images", i, what) for i, what in content.image_faults),
        *(_problem(BAD_ANNOTATION, path, "annotations", i, what) for i, what in object_faults),
    ]
    folder, places = data_dir, list[str | None](content.names)
    if places:
        folder, places, more = _place(content, image_folders(data_dir, name, path), path, problems)
        remarks += more
    faulty = {as_whole(_field(content.odd[i], "image_id")) for i, _ in object_faults}
    return (
        RecordSet(
            title=_title(path, data_dir),
            records=_table(content, places, usable_N, faulty, categories, folder, path),
            classes=tuple(categories.values()),
            problems=(*faults, *problems),
            remarks=(
                *remarks,
                *remark(
                    "note",
                    "objects without a bbox",
                    _outlined(content, places, usable_N),
                    "They have the box of their segmentation; nothing to do.",
                ),
            ),
            form="xywh",
            learn_difficult=False,
        ),
        categories,
    )


def _problem(kind: str, path: Path, key: str, index: int, what: str) -> Problem:
    return Problem(kind=kind, where=f"{path}: {key}[{index}]", what=what)


def _field(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _table(
    content: CocoContent,
    places: Sequence[str | None],
    usable_N: npt.NDArray[np.bool_],
    faulty: Set[int | None],
    categories: Mapping[int, str],
    folder: Path,
    path: Path,
) -> RecordTable:
    """The images that have a place, each with its objects; without those of one that is faulty."""
    placed_I = np.array([place is not None for place in places], np.bool_)
    ids_I = np.asarray(content.ids)[placed_I]
    strange = np.array([number for number in faulty if number is not None], np.int64)
    numbers_N = np.asarray(content.object_ids)
    by_id = np.argsort(ids_I)
    sorted_ids = ids_I[by_id]
    spot_N = np.searchsorted(sorted_ids, numbers_N)
    spot_N[spot_N == len(sorted_ids)] = 0
    usable_N = usable_N & ~np.isin(numbers_N, strange)
    if len(sorted_ids):
        usable_N &= sorted_ids[spot_N] == numbers_N
    else:
        usable_N = np.zeros_like(usable_N)
    image_N = by_id[spot_N[usable_N]] if len(by_id) else spot_N[usable_N]
    order = np.argsort(image_N, kind="stable")
    kinds = np.array(list(categories), np.int64)  # rising
    codes_N = np.searchsorted(kinds, np.asarray(content.object_categories)[usable_N][order])
    names = Strings.of(place for place in places if place is not None)
    return RecordTable(
        names=names,
        images=names,
        folder=str(folder),
        sources=(str(path),),
        source=np.zeros(len(ids_I), np.int64),
        ids=ids_I,
        numbered=np.ones(len(ids_I), np.bool_),
        sizes=np.asarray(content.sizes).reshape(-1, 2)[placed_I].astype(np.int32),
        ends=np.cumsum(np.bincount(image_N, minlength=len(ids_I)), dtype=np.int64),
        class_names=tuple(categories.values()),
        classes=codes_N.astype(np.int32),
        boxes=np.asarray(content.boxes).reshape(-1, 4)[usable_N][order],
        difficult=np.asarray(content.ignored)[usable_N][order].astype(np.bool_),
        relative=np.zeros(len(ids_I), np.bool_),
    )


def _outlined(
    content: CocoContent, places: Sequence[str | None], usable_N: npt.NDArray[np.bool_]
) -> list[str]:
    """Which objects have the box of their outline, by their image's place or name."""
    if not content.outlined:
        return []
    usable = dict(zip(content.object_at, usable_N.tolist(), strict=True))
    image = dict(zip(content.object_at, content.object_ids, strict=True))
    names = {
        number: name if place is None else place
        for number, name, place in zip(content.ids, content.names, places, strict=True)
    }
    return [
        f"annotations[{i}] of {names[image[i]]}"
        for i in content.outlined
        if usable[i] and image[i] in names
    ]


def _title(path: Path, data_dir: Path) -> str:
    """The file's name, with its folder where that is not the usual one."""
    if path.parent.name == ANNOTATIONS or not path.is_relative_to(data_dir):
        return path.name
    return path.relative_to(data_dir).as_posix()


def _place(
    content: CocoContent, folders: Sequence[Path], path: Path, problems: list[Problem]
) -> tuple[Path, list[str | None], list[Remark]]:
    """The folder of the images, the path there of those that can be in it, and remarks."""
    written = content.names
    folder, places, by_end = place_images(written, folders)
    found = [f"{written[i]}: {folder / (places[i] or '')}" for i in by_end]
    taken: set[str] = set()
    for i, place in enumerate(places):
        if place is None or place in taken:
            what = f"file_name {place!r} is that of another entry, too"
            if place is None:
                what = f"file_name {written[i]!r} leads out of the image folder"
            problems.append(_problem(BAD_ENTRY, path, "images", content.image_at[i], what))
            places[i] = None
        else:
            taken.add(place)
    first = next((place for place in places if place is not None), None)
    also = [f for f in folders if first and _other_file(f / first, folder / first)]
    return (
        folder,
        places,
        [
            *remark(
                "note",
                "images found by the end of their file_name",
                found,
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
