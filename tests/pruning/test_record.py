"""A prune as it is told: in JSON, in Markdown, on the screen."""

from __future__ import annotations

import json
import math

import pytest
from loguru import logger

from yolox.pruning import PruneRecord, PruneReport, Stage
from yolox.pruning.report import LayerChange
from yolox.tools.prunmodel import show
from yolox.utils.documents import parse_json


def record(*losses: float, file_bytes: tuple[int, int] = (100, 50)) -> PruneRecord:
    layer = LayerChange(name="stem", channels=(8, 4), params=(80, 90), macs=(800, 400))
    report = PruneReport(
        layers=(layer,), params=(80, 90), macs=(800, 400), input_shape=(1, 3, 8, 8), difference=0.0
    )
    return PruneRecord(
        report=report, config={}, command="yolox prune", source="a.pth", output="b.pth",
        file_bytes=file_bytes, latency_ms=None, machine="m", hint=(), date="today",
        stages=tuple(Stage(label=str(n), loss=loss) for n, loss in enumerate(losses)),
    )  # fmt: skip


def test_a_loss_that_is_no_number_leaves_the_file_readable() -> None:
    content = parse_json(record(2.0, math.nan).to_json())
    assert [stage["loss"] for stage in content["stages"]] == [2.0, None]
    assert content == json.loads(record(2.0, math.inf).to_json())


@pytest.mark.parametrize(("after", "warned"), [(2.1, False), (9.0, True), (math.nan, True)])
def test_a_loss_that_rose_or_is_no_number_is_told(after: float, warned: bool) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    show(record(2.0, after))
    logger.remove(sink)
    assert ["expect little of the detector" in line for line in said] == [True] * warned


def test_what_grew_has_a_plus() -> None:
    lines = record(file_bytes=(100, 130)).to_markdown().splitlines()
    assert "| file, bytes | 100 | 130 | +30% |" in lines
    assert "| params | 80 | 90 | +12% |" in lines
    assert "| stem | 8 → 4 (−50%) | 80 → 90 (+12%) | 800 → 400 (−50%) |" in lines
