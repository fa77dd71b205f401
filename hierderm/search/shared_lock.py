"""A lock that any number of readers share, and a writer has to itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SharedLock:
    """Searches read together; a change waits until they are done and keeps new ones out.

    A thread may read within its own reading or writing; writing within its own reading would wait for ever.
    """

    def __init__(self) -> None:
        self._readers, self._changed = 0, Condition()

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._readers)
            yield
