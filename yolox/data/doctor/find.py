"""Which data set is at a path, and its splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from yolox.data.datasets.coco import read_coco
from yolox.data.datasets.records import RecordSet
from yolox.data.datasets.voc import read_voc
from yolox.data.datasets.yolo_txt import SPLITS, read_yolo
from yolox.data.errors import DataError
from yolox.utils.documents import DocumentError, read_yaml

_YAML = (".yaml", ".yml")
_ROBOFLOW = "_annotations.coco.json"
_SPLITLESS_NAMES = (_ROBOFLOW, "result.json")  # that name no split; the second is Label Studio's
# How files beside those with boxes are called: COCO's for its other tasks, Label Studio's notes.
_NO_BOXES = ("captions", "image_info", "notes", "panoptic", "person_keypoints", "stuff")
_USUAL_SPLITS = ("train", "trainval", "val", "test")  # the one to train on first


@dataclass(frozen=True, kw_only=True)
class LocatedData:
    """A data set, as far as its folders tell.

    Attributes:
        layout: coco, voc or yolo.
        place: the folder that holds the years (VOC), the ``data.yaml`` (YOLO), or the folder of
            the annotation files (COCO).
        splits: what each split is read by, the one to train on first: (year, split) pairs, the
            annotation file, or the name in ``data.yaml``.
    """

    layout: str
    place: Path
    splits: Mapping[str, list[tuple[str, str]] | Path | str]

    def read(self) -> dict[str, RecordSet]:
        """The records of every split. Raises DataError for what cannot be read at all."""
        return {name: self._read(name, source) for name, source in self.splits.items()}

    def _read(self, name: str, source: list[tuple[str, str]] | Path | str) -> RecordSet:
        if isinstance(source, list):
            return read_voc(self.place, source)
        if isinstance(source, Path):
            return read_coco(source.parent.parent, source, name)
        return read_yolo(self.place, source)


def find_splits(path: Path) -> dict[str, RecordSet]:
    """The records of the data set at a path by split, the one to train on first; see `locate`."""
    return locate(path).read()


def locate(path: Path) -> LocatedData:
    """The data set at a path; no annotation is read.

    A folder with VOC<year> folders, or one of these, or one laid out like these: splits train, val,
    test of all years together, trainval where these are not both there. A folder with COCO's
    ``annotations``, with one ``_annotations.coco.json`` a folder, or with JSON files in it: each
    file a split; or one JSON file, which is the one that is read. A ``data.yaml``, or its folder:
    the splits that it names.

    Raises DataError where none of these is there, or several are.
    """
    if path.suffix.lower() in _YAML and path.is_file():
        return _yolo(path)
    if path.suffix.lower() == ".json" and path.is_file():
        return _coco([path])
    if _main(path).is_dir():
        return _voc(path.parent if _is_year(path) else path, [path])
    roots = (path, path / "VOCdevkit")
    voc = next(((root, years) for root in roots if (years := _years(root))), None)
    coco = _instances(path / "annotations") or sorted(path.glob(f"*/{_ROBOFLOW}"))
    yolo = [file for name in _YAML if (file := path / f"data{name}").is_file()]
    _check_one_layout(path, voc, coco, yolo)
    if voc:
        return _voc(*voc)
    if yolo:
        return _yolo(yolo[0])
    if files := coco or _instances(path):
        return _coco(files)
    there = "" if path.exists() else ", which is not there"
    raise DataError(
        f"no data set at {path}{there}. Looked for: VOC<year>/ImageSets/Main in it, in "
        f"{path / 'VOCdevkit'} and as a year itself, or ImageSets/Main; annotations/*.json (COCO), "
        f"*/{_ROBOFLOW} or a .json file; data.yaml (YOLO) or another .yaml file. Name one of "
        "these, or an Exp as `exp`"
    )


def _check_one_layout(
    path: Path, voc: tuple[Path, list[Path]] | None, coco: list[Path], yolo: list[Path]
) -> None:
    places = {}
    if voc:
        root, years = voc
        places["VOC"] = years if root == path else [root]
    if coco:
        places["COCO"] = [coco[0].parent] if coco[0].name != _ROBOFLOW else coco
    if yolo:
        places["YOLO"] = yolo
    if len(places) > 1:
        found = "; ".join(f"{name}: {', '.join(map(str, of))}" for name, of in places.items())
        raise DataError(f"{path} holds data in several layouts, {found}. Name one of these")


def _years(root: Path) -> list[Path]:
    return [year for year in sorted(root.glob("VOC*")) if _main(year).is_dir()]


def _main(year: Path) -> Path:
    return year / "ImageSets" / "Main"


def _is_year(folder: Path) -> bool:
    return folder.name.startswith("VOC") and len(folder.name) > len("VOC")


def _voc(root: Path, years: list[Path]) -> LocatedData:
    found: dict[str, list[tuple[str, str]]] = {}
    for year in years:
        stems = {file.stem for file in _main(year).glob("*.txt")}
        if {"train", "val"} <= stems:
            stems.discard("trainval")  # the two of them together
        whole = {stem for stem in stems if stem.rpartition("_")[2] not in stems - {stem}}
        for split in _in_order(stems & set(_USUAL_SPLITS) or whole):
            name = "" if year == root else year.name.removeprefix("VOC")
            found.setdefault(split, []).append((name, split))
    if not found:
        raise DataError(
            f"no split in {', '.join(str(_main(year)) for year in years)}: expected files such as "
            f"trainval.txt and test.txt, one image name a line"
        )
    return LocatedData(
        layout="voc", place=root, splits={split: found[split] for split in _in_order(found)}
    )


def _instances(folder: Path) -> list[Path]:
    """The JSON files of a folder that hold boxes, as far as their names tell."""
    files = sorted(folder.glob("*.json"))
    return [file for file in files if not file.name.startswith(_NO_BOXES)] or files


def _coco(files: list[Path]) -> LocatedData:
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(_split_name(file), file.absolute())
        if other != file.absolute():
            raise DataError(
                f"{other} and {file.absolute()} both are the split {_split_name(file)}: name the "
                "one that is meant, as train_ann or val_ann of an Exp, or move the other away"
            )
    return LocatedData(
        layout="coco",
        place=files[0].absolute().parent,
        splits={name: by_name[name] for name in _in_order(by_name)},
    )


def _split_name(file: Path) -> str:
    if file.name in _SPLITLESS_NAMES:
        return file.absolute().parent.name
    return file.stem.removeprefix("instances_")


def _yolo(data_yaml: Path) -> LocatedData:
    try:
        content = read_yaml(data_yaml)
    except (OSError, DocumentError):
        content = None
    named = [split for split in SPLITS if isinstance(content, dict) and content.get(split)]
    # Where none is named, the reader says what is wrong with the file.
    return LocatedData(
        layout="yolo", place=data_yaml, splits={split: split for split in named or SPLITS[:1]}
    )


def _in_order(names: Iterable[str]) -> list[str]:
    """Sorted by which of the usual splits a name starts with, then by name."""

    def rank(name: str) -> int:
        found = (i for i, split in enumerate(_USUAL_SPLITS) if name.startswith(split))
        return max(found, default=len(_USUAL_SPLITS))

    return sorted(names, key=lambda name: (rank(name), name))
