"""How much memory is left to this process, and what it does not need."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that can be used without swapping: of the machine, or less in a container or job.

    None where the system does not say.
    """
    amounts = [*of_machine(), *of_cgroups()]
    return min(amounts) if amounts else None


def give_back_memory() -> None:
    """Hand freed memory back to the system, where glibc would keep it for later."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def of_machine() -> list[int]:
    """What the system says is left, in bytes; nothing where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass
    try:
        return [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return []


def of_cgroups() -> list[int]:
    """What the limits (cgroup v2) of this process's group and of those around it leave."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        number, _, name = line.split(":", 2)
        group = _CGROUPS / name.lstrip("/")
        groups = (group, *group.parents) if number == "0" else ()
        rooms += [room for room in map(group_room, groups) if room is not None]
    return rooms


def group_room(group: Path) -> int | None:
    """Bytes that a control group still has; None where it has no limit or does not tell."""
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    # pages of files that can be dropped are counted as used
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
