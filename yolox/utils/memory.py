"""How much memory is left to this process, and what it does not need."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
# Of a group: its limit, what it uses, and what of that its memory.stat calls easily dropped. The
# second are those of version 1, which has a number that no machine reaches where there is no limit.
_FILES = ("memory.max", "memory.current", "inactive_file")
_OLD_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NO_LIMIT = 2**60


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


def of_cgroups(listing: Path = _OWN_CGROUPS, root: Path = _CGROUPS) -> list[int]:
    """What the memory limits of this process's control groups and of those around them leave.

    Args:
        listing: the groups, a line each: ``0::/name`` of version 2, where each controller of
            version 1 has a line of its own, ``9:memory:/name``.
        root: where their files are, those of version 1 in a folder for each controller.
    """
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rooms = []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        group = root / controllers / name.lstrip("/")
        rooms += [room for room in map(group_room, (group, *group.parents)) if room is not None]
    return rooms


def group_room(group: Path) -> int | None:
    """Bytes that a control group still has; None where it has no limit or does not tell."""
    files = _FILES if (group / _FILES[0]).exists() else _OLD_FILES
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in files[:2])
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max" or int(limit) > _NO_LIMIT:
        return None
    # pages of files that can be dropped are counted as used
    return max(0, int(limit) - int(used) + int(stat.get(files[2], 0)))
