"""Small images inside pages."""

from __future__ import annotations

import base64
import io

from PIL import Image


def as_base64(content: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(content).decode()


def data_uri(content: bytes, kind: str = "png") -> str:
    """Image bytes as a data URI."""
    return f"data:image/{kind};base64,{as_base64(content)}"


def thumbnail(image: Image.Image, side: int) -> bytes:
    """JPEG bytes of an RGB image, reduced to at most `side` pixels on its longer side; metadata are dropped."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def thumbnail_uri(image: Image.Image, side: int) -> str:
    """`thumbnail` as a data URI."""
    return data_uri(thumbnail(image, side), "jpeg")
