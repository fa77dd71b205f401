"""Uploads: limited in bytes, number, type and pixels, decoded in memory, metadata dropped."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

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
    """Limits on requests.

    `image_bytes`: size of one upload; `image_pixels`: pixels of a decoded image; `seconds`: for a request's body to
    arrive; `at_once`: searches that run at the same time; `waiting`: requests that may wait, further ones are refused.
    """

    image_bytes: int = 15_000_000
    image_pixels: int = 50_000_000
    seconds: float = 60
    at_once: int = 2
    waiting: int = 32

    @property
    def body_bytes(self) -> int:
        """Largest size of a whole request: its images and a little for the fields."""
        return MAX_IMAGES * self.image_bytes + 100_000


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


async def read_form(request: Request, limits: Limits) -> Form:
    """The form of a multipart request, kept in memory; RefusedError where it is too large or no form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedError(415, "send a form (multipart/form-data) with the field 'image', 'image_id' or 'text'.")
    parser = MultiPartParser(
        request.headers, _counted(request, limits), max_files=MAX_IMAGES, max_fields=MAX_FIELDS, max_part_size=10_000
    )
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


async def _counted(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body as it comes, refused as soon as it is larger than a request may be."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body_bytes:
            raise RefusedError(413, _too_large(limits))
        yield chunk


def _too_large(limits: Limits) -> str:
    return f"an image must have at most {limits.image_bytes / 1e6:g} MB, and a request {MAX_IMAGES} images."


def decode(content: bytes, limits: Limits) -> Image.Image:
    """An upload as `open_image` reads a file; RefusedError where it is no image or too large."""
    try:
        return image_io.decode(io.BytesIO(content), formats=FORMATS, max_pixels=limits.image_pixels)
    except image_io.ImageError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
        raise RefusedError(status, str(error)) from None
