"""A lock that any number of readers share, and a writer has to itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local


class SharedLock:
    """Searches read together; a change waits until they are done, and later searches wait for it.

    A thread may read within its own reading or writing; writing within its own reading would wait for ever.
    """

    def __init__(self) -> None:
        self._changed, self._own = Condition(), local()
        self._readers = self._waiting_writers = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        if getattr(self._own, "inside", False):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_writers)
            self._readers += 1
        try:
            with self._entered():
                yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._changed:
            self._waiting_writers += 1
            try:
                self._changed.wait_for(lambda: not self._readers)
                with self._entered():
                    yield
            finally:
                self._waiting_writers -= 1
                self._changed.notify_all()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self._own.inside = True
        try:
            yield
        finally:
            self._own.inside = False
