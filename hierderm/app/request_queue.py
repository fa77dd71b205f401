"""How many searches run and wait at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from hierderm.app.uploads import Limits, RefusedError

Result = TypeVar("Result")


class RequestQueue:
    """At most `at_once` searches run at the same time and `waiting` requests wait; further ones are refused."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._inside, self._slots = limits, 0, asyncio.Semaphore(limits.at_once)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place in the queue for as long as the block runs."""
        if self._inside >= self._limits.at_once + self._limits.waiting:
            raise RefusedError(503, "too many searches are waiting. Try again in a few seconds.")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, search: Callable[[], Result]) -> Result:
        """Run a search in a thread as soon as there is a slot."""
        async with self._slots:
            return await run_in_threadpool(search)
