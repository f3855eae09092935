"""Which data set is at a path, and its splits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from yolox.data.datasets.coco import read_coco
from yolox.data.datasets.records import RecordSet
from yolox.data.datasets.voc import read_voc
from yolox.data.datasets.yolo_txt import SPLITS, read_yolo
from yolox.data.errors import DataError
from yolox.utils.documents import DocumentError, read_yaml

_YAML = (".yaml", ".yml")
_USUAL = ("train", "trainval", "val", "test")  # the one to train on first


def find_splits(path: Path) -> dict[str, RecordSet]:
    """The splits of the data set at a path, the one to train on first.

    A folder with VOC<year> folders, or one of these: splits train, val, test of all years
    together, trainval where these are not both there. A folder with COCO's ``annotations``, or
    one JSON file: each file a split. A ``data.yaml``, or its folder: the splits that it names.

    Raises DataError where none of these is there, or what is there cannot be read at all.
    """
    if path.suffix in _YAML and path.is_file():
        return _yolo_splits(path)
    if path.suffix == ".json" and path.is_file():
        return _coco_splits(path.parent.parent, [path])
    for root in (path, path / "VOCdevkit", path.parent):
        years = [path] if root == path.parent else sorted(root.glob("VOC*"))
        years = [year for year in years if _main(year).is_dir() and year.name.startswith("VOC")]
        if years:
            return _voc_splits(root, years)
    if files := sorted((path / "annotations").glob("*.json")):
        instances = [file for file in files if file.name.startswith("instances")]
        return _coco_splits(path, instances or files)
    if files := [file for name in _YAML if (file := path / f"data{name}").is_file()]:
        return _yolo_splits(files[0])
    there = "is there, but none of these" if path.exists() else "is not there"
    raise DataError(
        f"no data set at {path}, which {there}. Looked for: VOC<year>/ImageSets/Main in it, in "
        f"{path / 'VOCdevkit'} and as a year itself; annotations/*.json (COCO) or a .json file; "
        f"data.yaml (YOLO) or another .yaml file. Name one of these, or an Exp with -f"
    )


def _main(year: Path) -> Path:
    return year / "ImageSets" / "Main"


def _voc_splits(root: Path, years: list[Path]) -> dict[str, RecordSet]:
    found: dict[str, list[tuple[str, str]]] = {}
    for year in years:
        stems = {file.stem for file in _main(year).glob("*.txt")}
        if {"train", "val"} <= stems:
            stems.discard("trainval")  # the two of them together
        for split in _in_order(stems & set(_USUAL) or stems):
            found.setdefault(split, []).append((year.name.removeprefix("VOC"), split))
    if not found:
        raise DataError(
            f"no split in {', '.join(str(_main(year)) for year in years)}: expected files such as "
            f"trainval.txt and test.txt, one image name a line"
        )
    return {split: read_voc(root, found[split]) for split in _in_order(found)}


def _coco_splits(data_dir: Path, files: list[Path]) -> dict[str, RecordSet]:
    by_name = {file.stem.removeprefix("instances_"): file for file in files}
    return {name: read_coco(data_dir, by_name[name].name, name) for name in _in_order(by_name)}


def _yolo_splits(data_yaml: Path) -> dict[str, RecordSet]:
    try:
        content = read_yaml(data_yaml)
    except (OSError, DocumentError):
        content = None
    named = [split for split in SPLITS if isinstance(content, dict) and content.get(split)]
    # Where none is named, the reader says what is wrong with the file.
    return {split: read_yolo(data_yaml, split) for split in named or SPLITS[:1]}


def _in_order(names: Iterable[str]) -> list[str]:
    """Sorted by which of the usual splits a name starts with, then by name."""

    def rank(name: str) -> int:
        found = (i for i, split in enumerate(_USUAL) if name.startswith(split))
        return max(found, default=len(_USUAL))

    return sorted(names, key=lambda name: (rank(name), name))
