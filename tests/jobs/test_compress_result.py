"""What a compression gives back where its stages were done in an earlier run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolox.jobs.compress import result
from yolox.jobs.compress.settings import CompressSettings
from yolox.jobs.compress.verdict import Verdict


def test_ap_is_measured_on_the_device_of_the_settings(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trained / "best_ckpt.pth"
    pipeline: Any = SimpleNamespace(
        folder=tmp_path / "small",
        stages=lambda: [],
        record=lambda stages: None,
        verdict=lambda: Verdict(target="macs=0.5", before=2, after=1, met=True),
        exported=lambda form: tmp_path / form,
        source=file,
        tuned=file,
        report=tmp_path / "report.html",
        recipe=SimpleNamespace(exp=None),
        settings=CompressSettings(device="cpu", formats=()),
    )
    places: list[str] = []

    def noted(*given: Any) -> tuple[float, float]:
        places.append(given[3])
        return 0.5, 0.9

    monkeypatch.setattr(result, "run_stages", lambda *_, **__: None)
    monkeypatch.setattr(result, "tell_verdicts", lambda *_: None)
    monkeypatch.setattr(result, "ap_of_checkpoint", noted)
    found = result.run_compression(pipeline)
    assert (found.ap_before, found.ap_after) == (0.5, 0.5)
    assert places == ["cpu", "cpu"]
