"""What arrives: how slow, how many, how much at once, of one address and of all; and what is decoded at the same time."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError, Event
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from PIL import Image

import hierderm.app.routes as routes
from hierderm.app.server import create_app
from hierderm.app.uploads import Form, Limits, RefusedError, decoded
from hierderm.search.finder import CaseFinder
from tests.app.conftest import serving

TYPE = {"content-type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
Client = httpx2.AsyncClient


def png(side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 120, 110)).save(buffer, "PNG")
    return buffer.getvalue()


def at(app: FastAPI, address: str = "10.0.0.1") -> Client:
    return Client(transport=httpx2.ASGITransport(app=app, client=(address, 1)), base_url="http://test")


class Slow:
    """Uploads that send what they have, and then nothing until they may end."""

    def __init__(self, content: bytes = HEAD) -> None:
        self.content, self.end = content, asyncio.Event()

    async def begin(self, client: Client) -> asyncio.Task[httpx2.Response]:
        sent = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield self.content
            sent.set()
            await self.end.wait()
            yield b"\r\n--b--\r\n"

        task = asyncio.create_task(client.post("/api/search", content=body(), headers=TYPE))
        arrived = asyncio.create_task(sent.wait())
        await asyncio.wait([task, arrived], return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()
        return task

    async def finish(self, *tasks: asyncio.Task[httpx2.Response]) -> list[httpx2.Response]:
        self.end.set()
        return await asyncio.gather(*tasks)


async def search(client: Client) -> httpx2.Response:
    return await client.post("/api/search", files={"image": ("x.png", png())})


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


def test_an_upload_below_the_least_rate_is_given_up(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(rate=200, grace=0.1))  # the 68 bytes of HEAD buy it a third of a second

    async def work() -> None:
        answer = await (await Slow().begin(at(app)))
        assert answer.status_code == 408 and answer.headers["connection"] == "close"
        assert answer.json()["error"] == "the upload must bring 0.2 kB/s after 0.1 s, it was slower."
        assert (await search(at(app))).status_code == 200

    run(work)


def test_slow_uploads_take_no_place_of_a_search(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(at_once=1, waiting=0))

    async def work() -> None:
        slow = Slow(HEAD + png())
        tasks = [await slow.begin(at(app)) for _ in range(40)]
        assert (await search(at(app))).status_code == 200
        answers = await slow.finish(*tasks)
        assert {answer.status_code for answer in answers} == {200, 503}  # now they are searches, and there is one place

    run(work)


def test_one_address_gets_half_of_the_uploads(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(uploads=4))

    async def work() -> None:
        slow = Slow(HEAD + png())
        tasks = [await slow.begin(at(app)) for _ in range(2)]
        refused = await search(at(app))
        assert refused.status_code == 503 and "too many uploads arrive" in refused.json()["error"]
        assert refused.headers["retry-after"] == "5"
        tasks += [await slow.begin(at(app, "10.0.0.2")) for _ in range(2)]
        assert (await search(at(app, "10.0.0.3"))).status_code == 503  # all places are taken
        assert [answer.status_code for answer in await slow.finish(*tasks)] == [200] * 4
        assert (await search(at(app))).status_code == 200  # and free again

    run(work)


def test_all_bodies_share_one_memory(finder: CaseFinder) -> None:
    limits = Limits(image_bytes=100_000, memory=1_000_000)
    app = create_app(finder, limits=limits)

    async def work() -> None:
        slow = Slow(HEAD + bytes(90_000))
        tasks = [await slow.begin(at(app, "10.0.0.1")) for _ in range(5)]  # 450 kB of the 500 that an address gets
        for _ in range(2):
            refused = await at(app, "10.0.0.1").post("/api/search", files={"image": ("a", bytes(60_000))})
            assert refused.status_code == 503 and "the memory for uploads is full" in refused.json()["error"]
        assert (await search(at(app, "10.0.0.2"))).status_code == 200
        tasks += [await slow.begin(at(app, "10.0.0.2")) for _ in range(5)]
        unknown = await Slow(HEAD + bytes(120_000)).begin(at(app, "10.0.0.3"))  # a length that is not said before
        assert (await unknown).status_code == 503
        assert [answer.status_code for answer in await slow.finish(*tasks)] == [415] * 10  # zeros are no image
        assert (await search(at(app, "10.0.0.1"))).status_code == 200
        held = app.state.service.uploads
        assert not held._held and not held._arriving

    run(work)


def test_the_largest_request_fits_the_memory() -> None:
    limits = Limits(image_bytes=500_000_000)
    assert limits.budget / 2 >= limits.body_bytes > limits.memory


def test_a_length_that_is_too_large_is_refused_before_it_comes(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(image_bytes=100_000))

    async def work() -> None:
        async def body() -> AsyncIterator[bytes]:
            raise AssertionError("nothing of it is read")
            yield b""

        headers = {**TYPE, "content-length": "400001"}
        answer = await at(app).post("/api/search", content=body(), headers=headers)
        assert answer.status_code == 413 and "at most 0.1 MB" in answer.json()["error"]

    run(work)


@pytest.mark.parametrize(("pixels", "together"), [(1600, True), (1599, False)])
def test_large_images_are_not_in_memory_together(pixels: int, together: bool) -> None:
    barrier, limits = Barrier(2), Limits(shared_pixels=pixels)

    def work() -> bool:
        with decoded([png(40)], limits) as images:
            assert [image.size for image in images] == [(40, 40)]
            try:
                barrier.wait(5 if together else 0.1)
            except BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(2) as pool:
        found = [future.result() for future in [pool.submit(work) for _ in range(2)]]
    assert found == [together] * 2


def test_slow_sockets_and_leavers_of_a_real_server(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = Event(), list[str]()

    def held(_: CaseFinder, form: Form, __: Limits) -> Any:
        begun.append(form.one("text"))
        assert go_on.wait(30)
        raise RefusedError(422, "enough")

    monkeypatch.setattr(routes, "find", held)
    app = create_app(finder, limits=Limits(at_once=1, rate=200, grace=0.2))
    queue = app.state.service.searches

    def connected(address: str, content: bytes, length: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 30)
        head = (
            f"POST /api/search HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE['content-type']}\r\nContent-Length: {length}"
        )
        client.sendall(f"{head}\r\n\r\n".encode() + content)
        return client

    def inside(wanted: int) -> bool:
        until = time.monotonic() + 20
        while queue._inside != wanted and time.monotonic() < until:
            time.sleep(0.01)
        return bool(queue._inside == wanted)

    def form(text: str) -> bytes:
        return f'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n{text}\r\n--b--\r\n'.encode()

    with serving(app) as address:
        with connected(address, HEAD, 1000) as slow:
            answer = b"".join(iter(lambda: slow.recv(4096), b""))  # to its end: the server hangs up
        assert answer.startswith(b"HTTP/1.1 408") and b"it was slower" in answer
        first = connected(address, form("first"), len(form("first")))
        assert inside(1)
        leaver = connected(address, form("leaver"), len(form("leaver")))
        assert inside(2)
        leaver.close()
        assert inside(1)  # its place is free, while the first still runs
        stayer = connected(address, form("stayer"), len(form("stayer")))
        assert inside(2)
        go_on.set()
        for client in (first, stayer):
            assert client.recv(4096).startswith(b"HTTP/1.1 422")
            client.close()
    assert begun == ["first", "stayer"]
