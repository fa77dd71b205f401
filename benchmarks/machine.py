"""What the numbers of a benchmark were measured on, and the peak of this process."""

from __future__ import annotations

import platform
import resource
from importlib.metadata import version
from pathlib import Path
from typing import Any

from joblib import cpu_count

LIBRARIES = ("numpy", "scipy", "scikit-learn", "pandas", "torch", "pytorch-metric-learning")


def machine() -> dict[str, Any]:
    """Processor, cores, Python and libraries."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    found = {"processor": (names or [platform.processor()])[0], "cores": cpu_count()}
    return found | {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def peak_mb(who: int = resource.RUSAGE_SELF) -> int:
    """The most memory that this process, or one of its children, ever had."""
    return round(resource.getrusage(who).ru_maxrss / 1e3)
