"""What a process of `at_once` does in tests, apart from their imports, for which each process would wait."""

from __future__ import annotations

import os
from pathlib import Path

from hierderm.errors import MissingExtraError
from hierderm.progress import logger


def leave_a_note(folder: Path, name: str) -> None:
    if name == "bad":
        raise MissingExtraError("this", "extra")
    logger.info("%s is done", name)
    (folder / name).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
