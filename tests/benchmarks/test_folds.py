"""Folds of the recipe driver: each image once, classes spread, what cannot be dealt out refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.helpers import script
from tests.runs import REPO
from yolox.data import read_voc
from yolox.pruning import PruneConfig
from yolox.tools.flags.prunmodel import make_parser
from yolox.utils.errors import UserError


@pytest.fixture(scope="module")
def folds() -> ModuleType:
    return script("folds")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return script("recipe")


@pytest.mark.parametrize(("images", "parts"), [(10, 5), (11, 3), (364, 5), (3, 3)])
def test_every_image_is_in_one_fold(folds: ModuleType, images: int, parts: int) -> None:
    classes = [("a",) if n % 7 else ("a", "rare") for n in range(images)]
    dealt = folds.deal(classes, parts, seed=1)
    assert sorted(index for fold in dealt for index in fold) == list(range(images))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert dealt == folds.deal(classes, parts, seed=1)
    if images > 20:
        assert dealt != folds.deal(classes, parts, seed=2)


def test_a_rare_class_is_spread_and_a_fold_without_it_is_named(folds: ModuleType) -> None:
    classes = [("common",)] * 40 + [("common", "rare")] * 5 + [()] * 5
    dealt = folds.deal(classes, 5)
    assert [sum(40 <= index < 45 for index in fold) for fold in dealt] == [1] * 5
    assert folds.missing_classes(classes, dealt) == {}
    classes[40:42] = [("common",)] * 2
    missing = folds.missing_classes(classes, folds.deal(classes, 5))
    assert list(missing.values()) == [["rare"], ["rare"]]


@pytest.mark.parametrize(
    ("images", "parts", "message"),
    [(4, 5, "4 images cannot be dealt out to 5 folds"), (4, 1, "at least 2 folds, got 1")],
)
def test_too_few_images_or_folds(folds: ModuleType, images: int, parts: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        folds.deal([("a",)] * images, parts)


def test_the_folds_can_be_read_and_share_the_images(
    folds: ModuleType, devkit: Path, tmp_path: Path
) -> None:
    warnings = folds.write_folds(devkit, tmp_path, 3)
    whole = {record.name for record in read_voc(devkit, folds.SETS).records}
    tested: list[str] = []
    for fold in range(3):
        train, test = (
            [record.name for record in read_voc(tmp_path, [("2007", f"fold{fold}_{part}")]).records]
            for part in ("train", "test")
        )
        assert set(train) | set(test) == whole
        assert not set(train) & set(test)
        tested += test
    assert sorted(tested) == sorted(whole)
    assert all("left out of that fold's mean" in warning for warning in warnings)
    assert folds.write_folds(devkit, tmp_path, 3) == warnings  # again, over what is there


def _line(row: str, fold: int, draws: list[float], **more: Any) -> dict[str, Any]:
    tested = {"images": 9, "classes": ["a"]}
    return {"row": row, "seed": 0, "fold": fold, "draws": draws, **tested, **more}


def test_a_row_is_held_against_the_control_of_its_fold(recipe: ModuleType) -> None:
    lines = [
        _line("control", 0, [0.5, 0.5, 0.6]),
        _line("control", 1, [0.7, 0.6, 0.8]),
        _line("default=0.5", 0, [0.6, 0.7, 0.7]),
        _line("default=0.5", 1, [0.7, 0.6, 0.8]),
        _line("default=0.5", 2, [0.0, 0.0, 0.0]),  # whose control is not done yet
    ]
    difference = recipe.paired(lines, "control", "default=0.5")
    assert difference.value == pytest.approx(0.05)
    assert (difference.low, difference.high) == pytest.approx(
        tuple(np.quantile([0.1, 0.05], [0.025, 0.975]))
    )
    assert recipe.paired(lines, "control", "macs=0.5") is None


@pytest.mark.parametrize("other", [{"images": 8}, {"classes": ["a", "b"]}], ids=str)
def test_rows_of_other_images_or_classes_are_not_subtracted(
    recipe: ModuleType, other: dict[str, Any]
) -> None:
    lines = [_line("control", 0, [0.5, 0.5]), _line("default=0.5", 0, [0.6, 0.7], **other)]
    (key,) = other
    with pytest.raises(UserError, match=f"of seed 0 were tested on other {key}"):
        recipe.paired(lines, "control", "default=0.5")


def test_rows_are_held_against_another_one(recipe: ModuleType) -> None:
    more = {"model": "m", "size": 64, "ap50": 0.5, "macs": 1, "params": 1, "cut": {}}
    lines = [
        _line(row, 0, [ap, ap], ap=ap, **more)
        for row, ap in (("control", 0.5), ("default=0.5", 0.4), ("default, search=0.5", 0.6))
    ]
    text = recipe.table(lines, "default=0.5")
    assert "against default=0.5 |" in text
    assert "default, search=0.5 against default=0.5: +20.0 points" in text
    assert "search=0.5 against control: +10.0 points" in recipe.table(lines)


def test_lines_of_earlier_series_are_still_a_table(recipe: ModuleType) -> None:
    lines = recipe.read(REPO / "benchmarks" / "results" / "recipe_s192.jsonl")
    text = recipe.table(lines)
    assert text.count("| yolox-s at 192 |") > 10
    assert " against " not in text.splitlines()[-1]


def test_the_flags_of_every_row_are_pruned_by(recipe: ModuleType) -> None:
    for name, variant in recipe.VARIANTS.items():
        flags = [flag.format(start="base.pth", between=5) for flag in variant.prune]
        args = make_parser().parse_args(["--target", "macs=0.5", *flags])
        config = PruneConfig(target=args.target, importance=args.importance, scope=args.scope)
        assert (config.scope == "uniform") == ("uniform" in name), name
        assert (args.search > 0) == ("search" in name), name
        assert recipe.row_name(f"{name}=0.5") == f"{name}=0.5"
        assert recipe.order(name) > recipe.order("control")
