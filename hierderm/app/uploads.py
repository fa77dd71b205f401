"""Uploads: limited in bytes, number, type and pixels, decoded in memory, metadata dropped."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from threading import Lock

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from hierderm.data import image_io
from hierderm.search.query import MAX_IMAGES

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
MAX_FIELDS = 60
_STATUS = {image_io.NotAnImageError: 415, image_io.TooLargeError: 413}  # of any other error of an image: 422


@dataclass(frozen=True)
class Limits:
    """Limits on requests. No address may have more than half of the uploads or of their memory.

    `image_bytes`: size of one upload; `image_pixels`: pixels of a decoded image; `seconds`: for a request's body to
    arrive; `rate`: bytes a second that a body must bring on average after `grace` seconds; `uploads`: bodies that
    arrive at the same time; `memory`: bytes of all bodies that arrive, wait or are searched with; `at_once`: searches
    that run at the same time; `waiting`: requests that may wait, further ones are refused; `shared_pixels`: a search
    with more pixels than this holds up the decoding of others.
    """

    image_bytes: int = 15_000_000
    image_pixels: int = 50_000_000
    seconds: float = 60
    rate: float = 5_000
    grace: float = 3
    uploads: int = 128
    memory: int = 256_000_000
    at_once: int = 2
    waiting: int = 32
    shared_pixels: int = 24_000_000

    @property
    def body_bytes(self) -> int:
        """Largest size of a whole request: its images and a little for the fields."""
        return MAX_IMAGES * self.image_bytes + 100_000

    @property
    def budget(self) -> int:
        """Bytes of all bodies together, of which one address gets half: the largest request must fit."""
        return max(self.memory, 2 * self.body_bytes)


class RefusedError(Exception):
    """A request that is refused: the HTTP status, and the reason for the person who sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Form:
    """What a search request holds: encoded images, and its other fields, each with all its values."""

    images: list[bytes] = field(default_factory=list)
    fields: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str, default: str = "") -> str:
        return self.fields.get(name, [default])[-1].strip() or default


class Uploads:
    """The bodies of all requests: how many arrive, how many bytes they hold until they are answered, and whose."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._arriving, self._held = limits, Counter[str](), Counter[str]()

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[Form]:
        """The form of a multipart request, kept in memory for as long as the block runs.

        RefusedError where it is too large, too slow, no form, or where there is no room for it.
        """
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise RefusedError(415, "send a form (multipart/form-data) with the field 'image', 'image_id' or 'text'.")
        client, limits = request.client.host if request.client else "", self._limits
        if self._arriving.total() >= limits.uploads or self._arriving[client] >= limits.uploads / 2:
            raise RefusedError(503, "too many uploads arrive. Try again in a few seconds.")
        own = Counter[str]()  # what this request holds
        try:
            self._arriving[client] += 1
            try:
                form = await _parse(request, self._counted(request, client, own), limits)
            finally:
                self._arriving = self._arriving - Counter({client: 1})
            yield form
        finally:
            self._held = self._held - own

    async def _counted(self, request: Request, client: str, own: Counter[str]) -> AsyncGenerator[bytes, None]:
        """The body as it comes, refused as soon as it is too large or too slow, or the memory is full."""
        limits, start = self._limits, asyncio.get_running_loop().time()
        self._require_room(client, int(request.headers.get("content-length", 0)))
        stream = aiter(request.stream())
        while True:
            enough = start + limits.grace + own.total() / limits.rate
            try:
                async with asyncio.timeout_at(min(enough, start + limits.seconds)):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise RefusedError(408, _too_slow(limits, enough < start + limits.seconds)) from None
            if chunk is None:
                return
            self._require_room(client, len(chunk), own.total())
            own[client] += len(chunk)
            self._held[client] += len(chunk)
            yield chunk

    def _require_room(self, client: str, more: int, own: int = 0) -> None:
        limits = self._limits
        if own + more > limits.body_bytes:
            raise RefusedError(413, _too_large(limits))
        if self._held.total() + more > limits.budget or self._held[client] + more > limits.budget / 2:
            raise RefusedError(503, "the memory for uploads is full. Try again in a few seconds.")


async def _parse(request: Request, body: AsyncGenerator[bytes, None], limits: Limits) -> Form:
    parser = MultiPartParser(request.headers, body, max_files=MAX_IMAGES, max_fields=MAX_FIELDS, max_part_size=10_000)
    parser.spool_max_size = limits.body_bytes  # so that no upload ever reaches the disk
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(400, f"the form could not be read: {error.message}") from None
    except ClientDisconnect:
        raise RefusedError(400, "the upload was interrupted.") from None
    images, fields = [], dict[str, list[str]]()
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            await value.close()
            if len(content) > limits.image_bytes:
                raise RefusedError(413, _too_large(limits))
            if content:  # browsers send an empty part for an empty file field
                images.append(content)
        else:
            fields.setdefault(name, []).append(value)
    return Form(images, fields)


def _too_slow(limits: Limits, stalled: bool) -> str:
    if stalled:
        return f"the upload must bring {limits.rate / 1000:g} kB/s after {limits.grace:g} s, it was slower."
    return f"the upload took more than {limits.seconds:g} s."


def _too_large(limits: Limits) -> str:
    return f"an image must have at most {limits.image_bytes / 1e6:g} MB, and a request {MAX_IMAGES} images."


def decode(content: bytes, limits: Limits) -> Image.Image:
    """An upload as `open_image` reads a file; RefusedError where it is no image or too large."""
    try:
        return image_io.decode(io.BytesIO(content), formats=FORMATS, max_pixels=limits.image_pixels)
    except image_io.ImageError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
        raise RefusedError(status, str(error)) from None


_DECODING = Lock()


@contextmanager
def decoded(contents: Sequence[bytes], limits: Limits) -> Iterator[list[Image.Image]]:
    """The images of a search for as long as the block runs, decoded one at a time in the whole process.

    While a search has more than `shared_pixels`, no other one decodes, so that large images can't add up.
    """
    with ExitStack() as alone:
        alone.enter_context(_DECODING)
        images = [decode(content, limits) for content in contents]
        if sum(image.width * image.height for image in images) <= limits.shared_pixels:
            alone.close()
        yield images
