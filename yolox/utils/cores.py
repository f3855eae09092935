"""How many cores this process may use."""

import os


def cores() -> int:
    """Those that the system leaves to it, or all of the machine where it does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
