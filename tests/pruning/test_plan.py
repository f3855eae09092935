"""A plan file is a plan, or one line says what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from yolox.pruning import PruningError, PruningPlan

PLAN = PruningPlan(
    removed={"stem": (0, 3), "neck": (1,)},
    sizes={"stem": 8, "neck": 4, "head": 6},
    config={"mode": "global", "target": "macs=0.5", "layers": []},
)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2.5,
    10**400,
    float("nan"),
    "",
    "x",
    [],
    [1],
    [[1]],
    {},
    {"a": 1},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    PLAN.save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_a_plan_comes_back(file: Path) -> None:
    assert PruningPlan.load(file) == PLAN
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"newer": 1}))
    assert PruningPlan.load(file) == PLAN


def test_slots_in_any_order_are_the_same_plan(file: Path) -> None:
    values = json.loads(file.read_text())
    values["groups"][0]["remove"].reverse()
    assert PruningPlan.from_dict(values) == PLAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, this program reads up to 1: update it"),
        ({"version": "1"}, "version: expected an integer from 1 to 1, got '1'"),
        ({"groups": {}}, "groups: expected a list"),
        ({"groups": [3]}, r"groups\[0\]: expected names with values, got 3"),
        ({"remove": [0, 0]}, r"groups\[0\].remove: a slot is named twice"),
        ({"remove": [8]}, r"groups\[0\].remove: expected slots below 8"),
        ({"remove": [-1]}, r"remove\[0\]: expected an integer from 0"),
        ({"remove": [1.5]}, r"remove\[0\]: expected an integer"),
        ({"remove": [True]}, r"remove\[0\]: expected an integer .*got True"),
        ({"size": 10**400}, "size: expected an integer .*got a number of 1329 bits"),
        ({"name": "neck"}, "groups: a group is named twice"),
    ],
)
def test_what_is_wrong_is_said(file: Path, change: dict[str, Any], message: str) -> None:
    values = json.loads(file.read_text())
    (key,) = change
    target = values["groups"][0] if key in ("remove", "size", "name") else values
    target.update(change)
    with pytest.raises(PruningError, match=message):
        PruningPlan.from_dict(values)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"format": "yolox-pruning-plan", "version": 1, "groups": 3}']
)
def test_a_file_that_is_no_plan_is_named(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(PruningError, match=r"plan\.json"):
        PruningPlan.load(file)


def test_every_odd_field_serves_or_is_told(file: Path) -> None:
    values = json.loads(file.read_text())
    told = 0
    for value in ODD:
        changes: list[dict[str, Any]] = [values | {key: value} for key in values]
        group = values["groups"][0]
        changes += [values | {"groups": [group | {key: value}]} for key in group]
        changes.append(values | {"config": {"target": value}})
        changes += [
            values | {"groups": [{k: group[k] for k in group if k != key}]} for key in group
        ]
        for change in changes:
            try:
                plan = PruningPlan.from_dict(change)
            except PruningError as error:
                told += "\n" not in str(error)
            else:
                json.loads(plan.to_json())
    assert told > 100


def test_a_plan_that_cannot_be_written_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        PruningError, match=r"plan.json \(No space left.*earlier plan.json is whole"
    ):
        PruningPlan(removed={}, sizes={}, config={}).save(file)
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]
