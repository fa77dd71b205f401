"""Work waits in order, is refused beyond its places, and is not begun for a client that has left."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

import pytest
from starlette.requests import Request

from hierderm.app.request_queue import RequestQueue
from hierderm.app.uploads import RefusedError


class Sender:
    """A client that stays until it leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.request = Request({"type": "http", "headers": []}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_work_of_a_client_that_leaves_never_starts() -> None:
    done: list[str] = []

    async def work() -> None:
        queue, hold, senders = RequestQueue("searches", 1, 2), Event(), [Sender() for _ in range(4)]
        running = asyncio.create_task(queue.run(senders[0].request, hold.wait))
        await settled()
        leaver, stayer = (
            asyncio.create_task(queue.run(sender.request, lambda name=name: done.append(name)))  # type: ignore[misc]
            for name, sender in zip(("leaver", "stayer"), senders[1:], strict=False)
        )
        await settled()
        with pytest.raises(RefusedError, match="too many searches are waiting") as refused:
            await queue.run(senders[3].request, lambda: done.append("refused"))
        assert refused.value.status == 503
        senders[1].left.set()
        with pytest.raises(RefusedError, match="the client hung up before its turn came"):
            await leaver  # while the first still runs: its place is free at once
        hold.set()
        await stayer
        await running
        assert (queue._inside, queue._slots._value) == (0, 1)
        await queue.run(senders[3].request, lambda: done.append("later"))

    asyncio.run(asyncio.wait_for(work(), 30))
    assert done == ["stayer", "later"]


def test_a_client_that_has_left_already_takes_no_slot() -> None:
    async def work() -> None:
        queue, sender = RequestQueue("searches", 1, 0), Sender()
        sender.left.set()
        with pytest.raises(RefusedError, match="hung up"):
            await queue.run(sender.request, pytest.fail)
        assert (queue._inside, queue._slots._value) == (0, 1)

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_failure_frees_its_place() -> None:
    def broken() -> None:
        raise ValueError("x")

    async def work() -> None:
        queue = RequestQueue("searches", 1, 0)
        for _ in range(3):
            with pytest.raises(ValueError, match="x"):
                await queue.run(Sender().request, broken)

    asyncio.run(asyncio.wait_for(work(), 30))
