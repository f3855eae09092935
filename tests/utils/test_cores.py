import os
from pathlib import Path

import pytest

from yolox.utils.cores import cores, limit_threads_to_share


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight processors, all of them visible."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def share(folder: Path, text: str) -> Path:
    """A container's share, as Linux tells it today."""
    (folder / "cpu.max").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("max 100000\n", 8),
        ("", 8),
        ("a b c", 8),
    ],
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, eight: None, text: str, count: int
) -> None:
    assert cores(share(tmp_path, text)) == count


@pytest.mark.parametrize(("quota", "count"), [("250000", 3), ("-1", 8)])
def test_cores_of_an_older_container(tmp_path: Path, eight: None, quota: str, count: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == count


def test_cores_without_a_container_are_the_visible_ones(tmp_path: Path, eight: None) -> None:
    assert cores(tmp_path) == 8


def test_threads_are_limited_in_a_container_unless_given(
    tmp_path: Path, eight: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    limit_threads_to_share(share(tmp_path, "200000 100000"))
    assert os.environ["OMP_NUM_THREADS"] == "4"
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads_to_share(share(tmp_path, "max 100000"))
    assert "OMP_NUM_THREADS" not in os.environ
    limit_threads_to_share(share(tmp_path, "200000 100000"))
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")
