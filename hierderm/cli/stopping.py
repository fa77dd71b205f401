"""Ctrl-C: the command stops within a second, whatever it is doing, and says how to go on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from types import FrameType

from hierderm.cli.output import say

PATIENCE = 0.7  # seconds that the command has to end by itself: to leave no temporary files, and to end its processes
STOPPED = 130  # exit code, as of a shell's command that SIGINT ended


class Stopped(BaseException):
    """Ctrl-C was pressed. Not a KeyboardInterrupt: libraries turn that into exit codes and messages of their own."""


@contextmanager
def stopping() -> Iterator[None]:
    """Ends the process on SIGINT with exit code 130, and says which command goes on where this one stopped.

    The block gets `Stopped`, so that it ends in order. Python delivers that between two of its own steps, and a product
    of matrices is one step: after `PATIENCE` a thread ends the process. Whoever handles the signal within the
    block, such as a server, keeps it, and where it was ignored before, as in jobs of a script, it still is.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    said, lock = Event(), Lock()

    def tell() -> None:
        with lock:
            if not said.is_set():
                said.set()
                say(f"\nStopped. What was finished is kept; to go on, give the command again:\n  {_command()}")

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    def watch() -> None:
        while numbers := os.read(heard, 64):  # nothing once the other end is closed
            if signal.SIGINT in numbers and signal.getsignal(signal.SIGINT) is stop:
                Event().wait(PATIENCE)
                tell()
                os._exit(STOPPED)
        os.close(heard)

    heard, spoken = os.pipe()
    os.set_blocking(spoken, False)
    before = signal.signal(signal.SIGINT, stop)
    descriptor = signal.set_wakeup_fd(spoken, warn_on_full_buffer=False)
    Thread(target=watch, daemon=True).start()
    try:
        yield
    except Stopped:
        tell()
        sys.exit(STOPPED)
    finally:
        if not said.is_set():  # else the watch goes on: what Python does at its end may take long, too
            signal.signal(signal.SIGINT, before)
            signal.set_wakeup_fd(descriptor)
            os.close(spoken)


def _command() -> str:
    """The command as it was given."""
    return f"{program()} {shlex.join(sys.argv[1:])}"


def program() -> str:
    """What the command line was started as."""
    given = Path(sys.argv[0])
    return f"{Path(sys.executable).name} -m hierderm" if given.name == "__main__.py" else str(given)
