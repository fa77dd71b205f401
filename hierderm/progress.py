"""How a user sees work go on: the messages of the package, and how far a long step is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from threading import Event, Thread
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

DELAY = 2.0  # seconds that a step takes before a terminal shows it
REFRESH = 0.5  # seconds between two looks of the bar on a terminal
LINES = 30.0  # seconds between two lines in a log file

_lines_of: list[str] = []  # what this process works on, if its parent has the terminal


class Progress:
    """How far a step is: a bar on a terminal after two seconds, else a message every 30 seconds.

    A thread of its own shows it, so that a step is seen, too, while a single long call runs.

    Attributes:
        what: What is being done, in a word or two; may change.
        total: How much there is to do; None where that is not known.
        done: How much is done.
    """

    def __init__(self, what: str, total: int | None = None, *, unit: str = "", shown: bool | None = None) -> None:
        """A step that begins with the `with` block.

        Args:
            what: What is being done.
            total: How much there is to do, >= 0; None where that is not known.
            unit: What is counted, such as 'images'.
            shown: True shows a bar at once, on any stream; False shows nothing.
        """
        self.what, self.total, self.done = what, total, 0
        self._unit, self._shown = unit, shown
        self._ended, self._thread = Event(), Thread(target=self._show, daemon=True)
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        if self._shown is not False:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def update(self, n: int = 1) -> None:
        """`n` more are done."""
        self.done += n

    def __str__(self) -> str:
        """'Embedding: 640 of 6034 images, 1:05 so far, about 9:10 left'."""
        seconds = time.monotonic() - self._start
        total = "" if self.total is None else f" of {self.total}"
        count = f"{self.done}{total} {self._unit}".rstrip() + ", " if self.total is not None or self.done else ""
        left = ""
        if self.total and 0 < self.done <= self.total:
            left = f", about {clock(seconds * (self.total - self.done) / self.done)} left"
        return f"{self.what}: {count}{clock(seconds)} so far{left}"

    def _show(self) -> None:
        if self._shown or (sys.stderr.isatty() and not _lines_of):
            if self._shown or not self._ended.wait(DELAY):
                self._bar()
            return
        while not self._ended.wait(LINES):
            logger.info("%s", ": ".join([*_lines_of, str(self)]))

    def _bar(self) -> None:
        from tqdm import tqdm

        with tqdm(desc=self.what, total=self.total, unit=f" {self._unit}", leave=False, dynamic_ncols=True) as bar:
            bar.start_t -= time.monotonic() - self._start
            while True:
                bar.n, bar.total = self.done, self.total
                bar.set_description(self.what)  # shows it, too
                if self._ended.wait(REFRESH):
                    return


def track(
    items: Iterable[Item], what: str, total: int | None = None, *, unit: str = "", shown: bool | None = None
) -> Iterator[Item]:
    """The items, one after another, while a `Progress` shows how many were taken; by default of `len(items)`."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    with Progress(what, total, unit=unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, '1:05', or with hours, '2:01:05'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def printable(text: str) -> str:
    """A text for a terminal: signs that move the cursor, turn words or can't be seen are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _Messages(logging.Handler):
    """Messages of the package on standard error, as they are, above a bar that is there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        over_bar = "\r\x1b[K" if _lines_of and sys.stderr.isatty() else ""  # of the process that shows one
        tqdm.write(over_bar + printable(self.format(record)), file=sys.stderr)


def lines_of(name: str) -> None:
    """Show steps as lines that begin with `name`: in a process whose parent has the terminal."""
    _lines_of[:] = [name]


def show_messages() -> None:
    """Show on standard error what the package reports while it works."""
    package = logging.getLogger("hierderm")
    package.setLevel(logging.INFO)
    if not any(isinstance(handler, _Messages) for handler in package.handlers):
        package.addHandler(_Messages())
