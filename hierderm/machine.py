"""What of the machine this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """CPU cores the process may run on, 1 or more; fewer than the machine's where a scheduler pins it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
