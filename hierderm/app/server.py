"""The page and the JSON API: nothing of a request is kept, no path of the server is told, uploads are limited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hierderm import __version__
from hierderm import columns as c
from hierderm.app.gallery_map import GalleryMap, make_map
from hierderm.app.uploads import Form, Limits, RefusedError, decode, read_form
from hierderm.data.image_io import ImageError, open_image
from hierderm.errors import SearchError
from hierderm.report.page import DISCLAIMER
from hierderm.report.plots import PALETTE
from hierderm.report.thumbnails import thumbnail
from hierderm.search.case_index import MAX_PICTURES
from hierderm.search.filters import Filter, as_text
from hierderm.search.finder import SHOWN_COLUMNS, CaseFinder, Found, Wanted

STATIC = Path(__file__).parent / "static"
SIDES = (192, 1024)  # pixels of the longer side of the pictures that are given out
MAX_K = 100
MOST_VALUES = 40  # of a column that is offered as a filter
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
log = logging.getLogger(__name__)


class Turns:
    """At most `at_once` searches run together; so many may wait, and more are refused at once."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.inside, self.slots = limits, 0, asyncio.Semaphore(limits.at_once)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        if self.inside >= self.limits.at_once + self.limits.waiting:
            raise RefusedError(503, "too many searches are waiting. Try again in a few seconds.")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def run(self, work: Callable[[], Any]) -> Any:
        async with self.slots:
            return await run_in_threadpool(work)


def create_app(finder: CaseFinder, *, limits: Limits | None = None, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The web application on an open index. `hosts`: names it answers to, so that no other site can rebind to it."""
    limits = limits or Limits()
    turns = Turns(limits)
    has_text = finder.encoder.text_tower is not None  # a missing or foreign model shows now, not at the first request
    the_map: asyncio.Task[GalleryMap] | None = None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal the_map
        the_map = asyncio.create_task(run_in_threadpool(make_map, finder.index))
        yield

    app = FastAPI(title="hierderm", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        if request.url.path.startswith("/api/") and "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        wait = {"Retry-After": "5"} if error.status == 503 else None
        return JSONResponse({"error": error.reason}, error.status, headers=wait)

    @app.exception_handler(SearchError)
    async def not_searchable(_: Request, error: SearchError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return JSONResponse({"error": "the server failed on this request; its log says why."}, 500)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/api/info")
    async def info() -> dict[str, Any]:
        """What the index holds and how it can be searched."""
        return describe_index(finder, text=has_text, limits=limits)

    @app.post("/api/search")
    async def search(request: Request) -> dict[str, Any]:
        """The nearest cases to the form's 'picture' (one to three), 'image_id' or 'text'.

        Other fields: k, aggregation (best or mean), per_condition, within (repeatable), where (column=value,
        repeatable: values of one column are alternatives).
        """
        async with turns.admitted():
            try:
                form = await asyncio.wait_for(read_form(request, limits), limits.seconds)
            except TimeoutError:
                raise RefusedError(408, f"the upload took more than {limits.seconds:g} s.") from None
            found: Found = await turns.run(lambda: _search(finder, form, limits))
        content = finder.describe(found, files=False)
        drawn = the_map is not None and the_map.done() and the_map.exception() is None
        content["place"] = the_map.result().place(found.embeddings) if the_map and drawn else None
        return {**content, "disclaimer": DISCLAIMER}

    @app.get("/api/case")
    async def case(image_id: str) -> dict[str, Any]:
        """A case of the index, by one of its pictures."""
        row = finder.index.row_of_image(image_id)
        hit = finder.index.hit(row, 1.0)
        rows = finder.index.rows_of_case(hit.case_id)
        frame = finder.index.frame
        return {
            "case_id": hit.case_id,
            "condition": hit.condition,
            "path": list(hit.path),
            "images": [str(frame[c.IMAGE_ID].iloc[other]) for other in rows],
            **{name: as_text(frame[name].iloc[row]) for name in SHOWN_COLUMNS if name in frame},
        }

    @app.get("/api/picture")
    async def picture(image_id: str, side: int = Query(SIDES[0])) -> Response:
        """A picture of the index as JPEG, scaled, without its metadata."""
        if side not in SIDES:
            raise RefusedError(422, f"side must be one of {list(SIDES)}, got {side}.")
        file = finder.index.hit(finder.index.row_of_image(image_id), 1.0).file
        try:
            content = await run_in_threadpool(lambda: thumbnail(open_image(file), side))
        except ImageError as error:
            log.error("%s", error)
            raise RefusedError(404, f"the picture '{image_id}' can't be read on the server.") from None
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/api/map")
    async def gallery_map() -> dict[str, Any]:
        """The gallery in the plane: for each drawn picture its id, place and category."""
        assert the_map is not None
        made = await asyncio.shield(the_map)
        index = finder.index
        return {
            "images": [str(name) for name in index.frame[c.IMAGE_ID].iloc[made.rows]],
            "points": made.points.round(4).tolist(),
            "categories": index.labels[0, made.rows].tolist(),
            "names": list(index.taxonomy.names(0)),
            "colours": list(PALETTE),
        }

    return app


def describe_index(finder: CaseFinder, *, text: bool, limits: Limits) -> dict[str, Any]:
    """What a page must know to offer a search, as plain JSON without a path of the server."""
    index = finder.index
    tree, frame, calibration = index.taxonomy, index.frame, index.calibration
    present = set(index.gallery.fine.tolist())
    paths: dict[str, list[str]] = {}
    for fine, path in enumerate(tree.ancestors):
        if fine in present:
            paths.setdefault(tree.names(0)[path[0]], []).append(tree.names()[fine])
    values = {
        name: sorted({as_text(value) for value in frame[name]} - {""}, key=_by_number)
        for name in SHOWN_COLUMNS
        if name in frame
    }
    return {
        "version": __version__,
        "disclaimer": DISCLAIMER,
        "pictures": len(index),
        "cases": index.n_cases,
        "levels": list(tree.level_names),
        "tree": paths,
        "filters": {name: of_column for name, of_column in values.items() if 1 < len(of_column) <= MOST_VALUES},
        "text": text,
        "calibrated": calibration is not None,
        "wanted_accuracy": calibration.wanted if calibration else None,
        "max_pictures": MAX_PICTURES,
        "picture_bytes": limits.picture_bytes,
    }


def _by_number(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _search(finder: CaseFinder, form: Form, limits: Limits) -> Found:
    image_id, text = form.one("image_id"), form.one("text")
    if sum([bool(form.pictures), bool(image_id), bool(text)]) != 1:
        raise RefusedError(422, f"send 1 to {MAX_PICTURES} pictures, or 'image_id', or 'text': one of them.")
    wanted = _wanted(form)
    if image_id:
        return finder.by_image(image_id, wanted)
    if text:
        if finder.encoder.text_tower is None:
            raise RefusedError(422, "this index can't be searched by words: its model has no text side.")
        return finder.by_text(text, wanted)
    return finder.by_pictures([decode(content, limits) for content in form.pictures], wanted)


def _wanted(form: Form) -> Wanted:
    k, per_condition = _whole(form, "k", 10, 1, MAX_K), _whole(form, "per_condition", 0, 0, MAX_K)
    aggregation = form.one("aggregation", "best")
    if aggregation not in ("best", "mean"):
        raise RefusedError(422, f"aggregation must be 'best' or 'mean', got '{aggregation[:40]}'.")
    where: dict[str, list[str]] = {}
    for pair in filter(None, form.fields.get("where", [])):
        column, sign, value = pair.partition("=")
        if not sign or column not in SHOWN_COLUMNS:
            raise RefusedError(422, f"where must be column=value with a column of {list(SHOWN_COLUMNS)}.")
        where.setdefault(column, []).append(value)
    within = [name for name in form.fields.get("within", []) if name]
    return Wanted(k, "mean" if aggregation == "mean" else "best", Filter(within, where), per_condition)


def _whole(form: Form, name: str, default: int, least: int, most: int) -> int:
    text = form.one(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise RefusedError(422, f"{name} must be a whole number from {least} to {most}, got '{text[:40]}'.")
    return int(text)
