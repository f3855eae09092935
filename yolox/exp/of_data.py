"""A recipe for the data set at a path, whatever its layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from yolox.data.doctor import LocatedData, locate
from yolox.data.tiles import WHOLE_FOLDER
from yolox.exp.load import DEFAULT_MODEL, get_exp
from yolox.exp.yolox_base import Exp


def exp_of_data(path: str | Path, model: str = DEFAULT_MODEL) -> Exp:
    """The recipe of a built-in model for a data set, which is looked at and told.

    Args:
        path: a folder in VOC's, COCO's or YOLO's layout, or of DOTA tiles; an annotation file, or a
            ``data.yaml``.
        model: yolox-nano … yolox-x, yolov3.

    Raises:
        DataError: no data set there, saying what was looked for.
        ExpError: no such model.
    """
    found = locate(Path(path))
    layout = "dota" if _is_tiles(found) else found.layout
    train, val = _train_and_val(list(found.splits))
    exp = get_exp(layout, model=model)
    exp.give(**_fields(found, {"train": train, "val": val}))
    if test := next((name for name in found.splits if name.startswith("test")), None):
        exp.suggest(**_fields(found, {"test": test}))
    logger.info(f"{path}: {layout.upper()} layout, trained on {train}, evaluated on {val}")
    if train == val:
        logger.warning(
            f"{path} has one split, {train}, which is evaluated on too: its AP says little of "
            "other images; hold some back as val"
        )
    return exp


def _is_tiles(found: LocatedData) -> bool:
    years = [
        year for source in found.splits.values() if isinstance(source, list) for year in source
    ]
    return any((found.place / f"VOC{year}" / WHOLE_FOLDER).is_dir() for year, _ in years)


def _train_and_val(splits: Sequence[str]) -> tuple[str, str]:
    """The splits to train and evaluate on, of those that there are, in the doctor's order."""
    train = splits[0]
    others = [name for name in splits if name != train]
    usual = [name for name in others if name.startswith(("val", "test"))]
    return train, next(iter(usual or others), train)


def _fields(found: LocatedData, names: Mapping[str, str]) -> dict[str, Any]:
    """What is to be set for a split to train on, to evaluate on, or of test images."""
    fields: dict[str, Any] = {"data_dir": str(found.place)}
    for which, name in names.items():
        source = found.splits[name]
        if isinstance(source, list):
            pairs = tuple(f"{year}/{split}" if year else split for year, split in source)
            fields[f"{which}_sets"] = pairs
        elif isinstance(source, Path):
            fields |= {
                "data_dir": str(source.parent.parent),
                f"{which}_ann": str(source),
                f"{which}_name": name,
            }
        else:
            fields[f"{which}_split"] = source
    return fields
