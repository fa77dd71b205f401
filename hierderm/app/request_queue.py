"""How many pieces of work run and wait at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from hierderm.app.uploads import RefusedError

Result = TypeVar("Result")


class RequestQueue:
    """At most `at_once` pieces of work run at the same time and `waiting` requests wait; further ones are refused.

    `what`: what messages call the work, in the plural.
    """

    def __init__(self, what: str, at_once: int, waiting: int) -> None:
        self._what, self._places, self._inside = what, at_once + waiting, 0
        self._slots = asyncio.Semaphore(at_once)

    async def run(self, request: Request, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread as soon as there is a slot; never, if the client has left by then."""
        if self._inside >= self._places:
            raise RefusedError(503, f"too many {self._what} are waiting. Try again in a few seconds.")
        self._inside += 1
        try:
            await self._take_slot(request)
            try:
                return await run_in_threadpool(work)
            finally:
                self._slots.release()
        finally:
            self._inside -= 1

    async def _take_slot(self, request: Request) -> None:
        """Wait for a slot and for the client to leave, whichever comes first."""
        taken = left = False
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                nonlocal left
                while (await request.receive())["type"] != "http.disconnect":
                    pass  # the rest of a body that nobody reads
                left = True
                group.cancel_scope.cancel()

            group.start_soon(watch)
            await asyncio.sleep(0)  # a client that has left already is noticed before a free slot is taken
            taken = await self._slots.acquire()
            group.cancel_scope.cancel()
        if left:
            if taken:
                self._slots.release()
            raise RefusedError(400, "the client hung up before its turn came.")
