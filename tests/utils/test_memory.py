"""How much memory is left: the least of what the machine and the limits around a job leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolox.utils import memory


def group(folder: Path, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_a_limited_group_leaves_its_limit_less_what_cannot_be_dropped(tmp_path: Path) -> None:
    group(tmp_path, "1000", 700, 300)
    assert memory.group_room(tmp_path) == 600
    group(tmp_path, "1000", 1700, 300)
    assert memory.group_room(tmp_path) == 0
    group(tmp_path, "max", 700, 300)
    assert memory.group_room(tmp_path) is None
    assert memory.group_room(tmp_path / "none") is None


def old_group(folder: Path, limit: int, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 7\ntotal_inactive_file {inactive}\n")


def test_the_limits_of_both_versions_of_control_groups_are_read(tmp_path: Path) -> None:
    root, listing = tmp_path / "cgroup", tmp_path / "listing"
    listing.write_text("9:cpu,cpuacct:/job\n8:memory:/job/step\n0::/user\n")
    old_group(root / "memory" / "job" / "step", 2**63 - 4096, 700, 0)  # no limit
    old_group(root / "memory" / "job", 1000, 700, 300)
    old_group(root / "cpu,cpuacct" / "job", 1, 0, 0)  # not of memory
    group(root / "user", "900", 100, 0)
    assert memory.of_cgroups(listing, root) == [600, 800]
    # A container sees its own group as the root, whatever the name outside.
    (root / "user" / "memory.max").write_text("max")
    old_group(root / "memory", 2000, 500, 0)
    listing.write_text("8:memory:/docker/1a2b\n")
    assert memory.of_cgroups(listing, root) == [1500]


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "of_machine", lambda: [500])
    monkeypatch.setattr(memory, "of_cgroups", lambda: [900, 400])
    assert memory.available_memory() == 400
    monkeypatch.setattr(memory, "of_machine", list)
    monkeypatch.setattr(memory, "of_cgroups", list)
    assert memory.available_memory() is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_this_machine_has_some_but_not_more_than_it_holds() -> None:
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    (machine,) = memory.of_machine()
    assert 0 < machine < total
    available = memory.available_memory()
    assert available is not None
    assert 0 < available < total
