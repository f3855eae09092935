"""The processor: its name, and how many of its cores this process may use."""

import math
import os
import platform
from pathlib import Path

# What a container may use of all processors, as microseconds of a period: "200000 100000" is two
# of them, "max 100000" all. Older systems have a file for each of the two numbers.
_CGROUP = Path("/sys/fs/cgroup")
_OLD_QUOTA = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def cores(cgroup: Path = _CGROUP) -> int:
    """Those that the system leaves to it, or all of the machine where it does not say.

    In a container with a share of the processors (``docker run --cpus 2``), that share, rounded up.
    """
    count = _visible()
    quota = _quota(cgroup)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def limit_threads_to_share(cgroup: Path = _CGROUP) -> None:
    """Let OpenMP start no more threads than a container's share, if the person did not say.

    It counts the processors that it sees: of 64 threads on a share of two processors, 62 hold up
    the others at every operation. To be called before PyTorch is imported.
    """
    if cores(cgroup) < _visible():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores(cgroup)))


def _visible() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(cgroup: Path) -> float | None:
    """Processors that the container may use at a time; None: all."""
    new = cgroup / "cpu.max"
    paths = [new] if new.exists() else [cgroup / name for name in _OLD_QUOTA]
    try:
        words = " ".join(path.read_text(encoding="ascii") for path in paths).split()
        quota, period = (int(word) for word in words)
    except (OSError, ValueError):  # no such system, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if named:
            return named[0]
    return platform.processor() or platform.machine()
