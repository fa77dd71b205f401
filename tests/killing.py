"""Kill a writer before each of its changes of the disk in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SCRIPT = """
import importlib, os, signal, sys
from pathlib import Path

root, module, before, act = sys.argv[1:]
module = importlib.import_module(module)
seen = 0

def die_at(moment):
    def count(event, arguments):  # the interpreter calls it before each change
        global seen
        change = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")
        change |= event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if change and os.path.abspath(os.fsdecode(arguments[0])).startswith(root):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

moment, status = 0, -1
while status:
    moment += 1
    path = Path(root) / str(moment) / "w"
    if before:
        getattr(module, before)(path)
    child = os.fork()
    if not child:
        die_at(moment)
        try:
            getattr(module, act)(path)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
"""


def environment() -> dict[str, str]:
    """That of a process which can import the package and its tests."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def kill_at_every_change(root: Path, module: str, before: str, act: str) -> list[Path]:
    """Folders that `act` was to write when it was killed: before its first, second, ... change; the last was not.

    `before` and `act` are functions of a test module that take the folder. `before` makes what lies there, '' nothing.
    """
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), module, before, act], cwd=REPOSITORY, env=environment(), check=True
    )
    return [root / str(number) / "w" for number in sorted(int(path.name) for path in root.iterdir())]
