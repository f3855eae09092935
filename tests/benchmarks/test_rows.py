"""What rows of the benchmarks are told apart by, and what their variants do."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.helpers import script
from yolox.pruning import PruneConfig


@pytest.fixture(scope="module")
def criteria() -> ModuleType:
    return script("pruning_criteria")


def test_a_variant_does_what_its_name_says_and_nothing_else(criteria: ModuleType) -> None:
    found = {}
    for name, fields in criteria.VARIANTS.items():
        config = PruneConfig(**fields)
        found[name] = (config.absorb, config.reconstruct, config.bn_recalibrate)
    assert found == {
        "off": (False, 0, 0),
        "absorb": (True, 0, 0),
        "bn": (False, 0, 64),
        "reconstruct": (False, 64, 0),
        "all": (True, 64, 64),
    }


def test_rows_of_another_checkpoint_or_other_images_are_other_rows(
    criteria: ModuleType, tmp_path: Path
) -> None:
    keys = []
    for number, images in itertools.product(range(2), (8, 64)):
        file = tmp_path / f"{number}.pth"
        file.write_bytes(bytes([number]))
        args = argparse.Namespace(
            ckpt=file, images=images, left=[0.5], criteria=["l1"], scopes=["global"],
            variants=["off"], rounds=[1], round_to=8, per=None, normalize=None, aggregate=None,
        )  # fmt: skip
        keys += [key for key, _ in criteria.rows(args) if key["criterion"] == "l1"]
    assert len(keys) == 4
    assert all(one != other for one, other in itertools.combinations(keys, 2))


@pytest.mark.parametrize(
    ("change", "same"),
    [({}, True), ({"data": "elsewhere"}, True), ({"epochs": "9"}, False), ({"set": "[]"}, False)],
)
def test_a_row_of_other_settings_is_another_one(change: dict[str, Any], same: bool) -> None:
    rows = script("ultralytics_rows")
    settings = dict.fromkeys(rows.SETTINGS, "1")
    row = {"model": "yolov8n", "seed": 0, "settings": settings | {"data": "here"} | change}
    assert rows.same(row, "yolov8n", 0, settings) is same
    assert not rows.same(row, "yolov8n", 1, settings)
