"""Places of an image that stand out: the others are darkened, and some are framed and numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hierderm.data.preprocessing import Preprocessing
from hierderm.search.finder import CaseFinder
from hierderm.search.why import Place
from hierderm.types import FloatArray

if TYPE_CHECKING:
    from hierderm.model.encoder import Encoder

DARKEST = 0.25  # brightness of the places that are least alike


def why_images(
    finder: CaseFinder, images: Sequence[Image.Image], image_id: str, side: int
) -> tuple[int, Image.Image, Image.Image]:
    """What `CaseFinder.why` finds, drawn: the number of the query's image, it and the case, `side` pixels long."""
    nearest, case, found = finder.why(images, image_id)
    preprocessing = cast("Encoder", finder.encoder).network.backbone.preprocessing
    query_places, case_places = zip(*found.pairs, strict=True)
    return (
        nearest,
        overlay(images[nearest], found.query, preprocessing, query_places, side),
        overlay(case, found.case, preprocessing, case_places, side),
    )


def overlay(
    image: Image.Image, heat: FloatArray, preprocessing: Preprocessing, framed: Sequence[Place], side: int
) -> Image.Image:
    """One image, its longer side of `side` pixels. What the backbone does not see is as dark as the least alike."""
    small = ImageOps.contain(image, (side, side))
    left, top, right, bottom = seen_box(small.size, preprocessing)
    span = np.ptp(heat)
    bright = 255 * (DARKEST + (1 - DARKEST) * (heat - heat.min()) / (span if span > 0 else 1))
    mask = Image.new("L", small.size, round(255 * DARKEST))
    area = Image.fromarray(bright.round().astype(np.uint8)).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    mask.paste(area, (left, top))
    shown = Image.composite(small, Image.new("RGB", small.size), mask)
    draw, (rows, columns) = ImageDraw.Draw(shown), heat.shape
    width, height = (right - left) / columns, (bottom - top) / rows
    font = ImageFont.load_default(max(10, 0.6 * height))
    for number, (row, column) in enumerate(framed, start=1):
        x, y = left + column * width, top + row * height
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline="black", width=3)
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline="white", width=1)
        middle = (x + width / 2, y + height / 2)
        draw.text(middle, str(number), "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return shown


def seen_box(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a backbone sees of an image of a size (width, height)."""
    short = min(size)
    sides = [preprocessing.crop_fraction * (n if preprocessing.fit == "squash" else short) for n in size]
    left, top = ((n - own) / 2 for n, own in zip(size, sides, strict=True))
    return round(left), round(top), round(left + sides[0]), round(top + sides[1])
