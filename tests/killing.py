"""Kill a writer before each of its changes of the disk in turn."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.processes import prepared

Work = Callable[[Path], object]


def kill_at_every_change(root: Path, before: Work | None, act: Work) -> list[Path]:
    """Folders that `act` was to write when it was killed: before its first, second, ... change; the last was not.

    `before` and `act` are functions of a test module that take the folder. `before` makes what lies there.
    """
    process = prepared().Process(target=_kill_in_turn, args=(root, before, act))
    process.start()
    process.join()
    assert process.exitcode == 0
    return [root / str(number) / "w" for number in sorted(int(path.name) for path in root.iterdir())]


def _kill_in_turn(root: Path, before: Work | None, act: Work) -> None:
    os.fsync = lambda fd: None  # as in conftest.py
    moment, status = 0, -1
    while status:
        moment += 1
        path = root / str(moment) / "w"
        if before:
            before(path)
        child = os.fork()
        if not child:
            _die_at(moment, root)
            act(path)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status


def _die_at(moment: int, root: Path) -> None:
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:  # the interpreter calls it before each change
        nonlocal seen
        change = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")
        change |= event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if change and Path(os.fsdecode(arguments[0])).is_relative_to(root):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
