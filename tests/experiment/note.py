"""What a process of `at_once` does in tests, apart from their imports, for which each process would wait."""

from __future__ import annotations

import os
from pathlib import Path

from hierderm.data.checks import say_once
from hierderm.errors import MissingExtraError
from hierderm.progress import logger


def leave_a_note(folder: Path, name: str) -> None:
    if name == "bad":
        raise MissingExtraError("this", "extra")
    logger.info("%s is done", name)
    say_once("t.csv", "known note")
    say_once("t.csv", f"note of {name}")
    (folder / name).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
