"""The JSON API under /api, which the page uses too. Answers never contain a path of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from PIL import Image

from hierderm import __version__
from hierderm import columns as c
from hierderm.app.following import Following, Served
from hierderm.app.request_queue import RequestQueue
from hierderm.app.uploads import Form, Limits, RefusedError, Uploads, decoded
from hierderm.data.image_io import ImageError, open_image
from hierderm.data.table import as_text
from hierderm.errors import ModelError
from hierderm.plots import map_look
from hierderm.report.overlay import why_images
from hierderm.report.page import DISCLAIMER
from hierderm.report.thumbnails import thumbnail, thumbnail_uri
from hierderm.search.filters import BETWEEN
from hierderm.search.finder import SHOWN_COLUMNS, CaseFinder, FinderResult, SearchOptions
from hierderm.search.query import MAX_IMAGES
from hierderm.search.why import HINT
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray

SIDES = (192, 1024)  # pixels of the longer side of the images that are sent
WHY_SIDE = 640  # and of those with alike places
MAX_K = 100
MOST_VALUES = 40  # of a column that is offered as a filter
logger = logging.getLogger(__name__)
router = APIRouter(prefix="/api")


@dataclass(frozen=True)
class Service:
    """What the routes share: the index as it is now, and what limits their work."""

    following: Following
    limits: Limits
    uploads: Uploads
    searches: RequestQueue
    images: RequestQueue


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(_service)]


@router.get("/info")
async def info(service: Shared) -> dict[str, Any]:
    """What the index holds and how it can be searched."""
    finder = service.following.current.finder
    gallery, calibration = finder.index.gallery, finder.index.calibration
    tree, counts = gallery.taxonomy, gallery.count()
    conditions: dict[str, list[str]] = {}
    for fine, path in enumerate(tree.ancestors):
        if counts[fine]:
            conditions.setdefault(tree.names(0)[path[0]], []).append(tree.names()[fine])
    columns = {name: gallery.values(name) for name in SHOWN_COLUMNS if name in gallery.columns}
    return {
        "version": __version__,
        "generation": finder.generation,
        "disclaimer": DISCLAIMER,
        "images": len(gallery),
        "cases": gallery.n_cases,
        "levels": list(tree.level_names),
        "tree": conditions,
        "nodes": _nodes(tree, counts),
        "filters": {name: values for name, values in columns.items() if 1 < len(values) <= MOST_VALUES},
        "text": finder.takes_text,
        "why": finder.shows_places,
        "calibrated": calibration is not None,
        "wanted_accuracy": calibration.rule.wanted if calibration else None,
        "unlike": calibration.likeness.describe() if calibration and calibration.likeness else None,
        "max_images": MAX_IMAGES,
        "image_bytes": service.limits.image_bytes,
    }


def _nodes(tree: Taxonomy, counts: IntArray) -> list[dict[str, str]]:
    """What a search can be limited to: each node with cases, how `within` names it, and what stands beside it."""
    present = np.flatnonzero(counts)
    nodes: list[dict[str, str]] = []
    for level in range(tree.n_levels):
        paths, place = np.unique(tree.ancestors[present, : level + 1], axis=0, return_inverse=True)
        n_images = np.bincount(place.ravel(), weights=counts[present]).astype(int)
        names = [[tree.names(above)[number] for above, number in enumerate(path)] for path in paths]
        taken = [any(tree.find(path[-1], above) is not None for above in range(level)) for path in names]
        values = [BETWEEN.join(path) if other else path[-1] for path, other in zip(names, taken, strict=True)]
        nodes += [
            {"value": value, "label": f"{BETWEEN.join(path[:-1]) or tree.level_names[0]}, {count} images"}
            for value, path, count in zip(values, names, n_images.tolist(), strict=True)
        ]
    return nodes


@router.post("/search")
async def search(request: Request, service: Shared) -> dict[str, Any]:
    """The cases nearest to the form's 'image' (one to three), 'image_id' or 'text'.

    Other fields: k, aggregation (best or mean), per_condition, within (repeatable), where (column=value,
    repeatable: values of one column are alternatives).
    """

    def work() -> tuple[Served, FinderResult]:
        served = service.following.current
        return served, find(served.finder, form, service.limits)

    async with service.uploads.received(request) as form:
        served, result = await service.searches.run(request, work)
    return {**result.to_dict(paths=False), "place": served.place(result), "disclaimer": DISCLAIMER}


@router.post("/why")
async def why(request: Request, service: Shared) -> dict[str, Any]:
    """Which places of the query (the form's 'image', or 'image_id') and of the image 'case' are most alike: a hint.

    The answer has both as JPEG in data URIs, and the number of the query's image, from 0.
    """

    def work() -> dict[str, Any]:
        finder = service.following.current.finder
        with _query_images(finder, form, service.limits) as images:
            number, query, case = why_images(finder, images, form.one("case"), WHY_SIDE)
        return {"query": thumbnail_uri(query, WHY_SIDE), "case": thumbnail_uri(case, WHY_SIDE), "image": number}

    async with service.uploads.received(request) as form:
        try:
            return {**await service.searches.run(request, work), "hint": HINT}
        except ImageError as error:  # of the index: uploads have errors of their own
            logger.error("%s", error)
            raise RefusedError(404, "an image of the index can't be read on the server.") from None
        except ModelError as error:
            raise RefusedError(422, str(error)) from None


@contextmanager
def _query_images(finder: CaseFinder, form: Form, limits: Limits) -> Iterator[list[Image.Image]]:
    """The images that a form sends or, as an image of the index, names."""
    if bool(form.images) == bool(form.one("image_id")):
        raise RefusedError(422, f"send 1 to {MAX_IMAGES} images, or 'image_id': one of them.")
    if form.images:
        with decoded(form.images, limits) as images:
            yield images
        return
    gallery = finder.index.gallery
    yield [open_image(path) for path in gallery.image_paths([gallery.image_row(form.one("image_id"))])]


@router.get("/case")
async def case(image_id: str, service: Shared) -> dict[str, Any]:
    """A case of the index, by one of its images."""
    gallery = service.following.current.finder.index.gallery
    row = gallery.image_row(image_id)
    cells, path = gallery.cells(row), gallery.path(row)
    rows = np.array(gallery.case_rows(str(cells[c.CASE_ID])))
    return {
        "case_id": str(cells[c.CASE_ID]),
        "condition": path[-1],
        "path": list(path),
        "images": [str(image) for image in gallery.frame_at(rows)[c.IMAGE_ID]],
        **{name: as_text(cells[name]) for name in SHOWN_COLUMNS if name in cells},
    }


@router.get("/image")
async def image(request: Request, image_id: str, service: Shared, side: int = Query(SIDES[0])) -> Response:
    """An image of the index as JPEG, scaled, without its metadata."""
    if side not in SIDES:
        raise RefusedError(422, f"side must be one of {list(SIDES)}, got {side}.")
    gallery = service.following.current.finder.index.gallery
    (path,) = gallery.image_paths([gallery.image_row(image_id)])
    try:
        content = await service.images.run(request, lambda: thumbnail(open_image(path, least_side=side), side))
    except ImageError as error:
        logger.error("%s", error)
        raise RefusedError(404, f"the image '{image_id}' can't be read on the server.") from None
    return Response(content, media_type="image/jpeg")


@router.get("/map")
async def gallery_map(service: Shared) -> dict[str, Any]:
    """The gallery in the plane: for each drawn image its id, place and category."""
    drawing = service.following.current.map
    assert drawing is not None
    made = await asyncio.shield(drawing)
    gallery = made.gallery
    names = gallery.taxonomy.names(0)
    return {
        "images": [str(name) for name in gallery.frame_at(made.rows)[c.IMAGE_ID]],
        "points": made.points.round(4).tolist(),
        "categories": gallery.taxonomy.to_level(gallery.fine_at(made.rows), 0).tolist(),
        "names": list(names),
        "looks": [map_look(number) for number in range(len(names))],
    }


def find(finder: CaseFinder, form: Form, limits: Limits) -> FinderResult:
    """The search that a form asks for."""
    image_id, text = form.one("image_id"), form.one("text")
    if sum([bool(form.images), bool(image_id), bool(text)]) != 1:
        raise RefusedError(422, f"send 1 to {MAX_IMAGES} images, or 'image_id', or 'text': one of them.")
    options = search_options(form)
    if image_id:
        return finder.search_image_id(image_id, options)
    if text:
        if not finder.takes_text:
            raise RefusedError(422, "this index can't be searched by words: its model has no text tower.")
        return finder.search_text(text, options)
    with decoded(form.images, limits) as images:
        return finder.search(images, options)


def search_options(form: Form) -> SearchOptions:
    """The options of a search from the fields of a form."""
    aggregation = form.one("aggregation", "best")
    if aggregation not in ("best", "mean"):
        raise RefusedError(422, f"aggregation must be 'best' or 'mean', got '{aggregation[:40]}'.")
    where: dict[str, list[str]] = {}
    for pair in filter(None, form.fields.get("where", [])):
        column, sign, value = pair.partition("=")
        if not sign or column not in SHOWN_COLUMNS:
            raise RefusedError(422, f"where must be column=value with a column of {list(SHOWN_COLUMNS)}.")
        where.setdefault(column, []).append(value)
    return SearchOptions(
        k=_whole(form, "k", 10, 1, MAX_K),
        within=[name for name in form.fields.get("within", []) if name],
        where=where,
        aggregation="mean" if aggregation == "mean" else "best",
        per_condition=_whole(form, "per_condition", 0, 0, MAX_K),
    )


def _whole(form: Form, name: str, default: int, least: int, most: int) -> int:
    text = form.one(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise RefusedError(422, f"{name} must be a whole number from {least} to {most}, got '{text[:40]}'.")
    return int(text)
