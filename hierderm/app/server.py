"""The web application: the page, the API, security headers and errors. Nothing of a request is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hierderm import __version__
from hierderm.app.gallery_map import make_map
from hierderm.app.request_queue import RequestQueue
from hierderm.app.routes import Service, router
from hierderm.app.uploads import Limits, RefusedError
from hierderm.errors import SearchError
from hierderm.search.finder import CaseFinder

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
logger = logging.getLogger(__name__)


def create_app(finder: CaseFinder, *, limits: Limits | None = None, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The web application on an open index.

    Args:
        finder: The index and its model.
        limits: Limits on uploads and searches.
        hosts: Host names the application answers to, so that no other site can rebind its name to it.

    Raises:
        SearchError: The model of the index is missing, or another one is in its place.
    """
    limits = limits or Limits()
    _ = finder.takes_text  # load the model now: a missing or foreign one must not wait for the first request
    app = FastAPI(title="hierderm", version=__version__, docs_url=None, redoc_url=None, lifespan=_draw_map)
    app.state.service = Service(finder, limits, RequestQueue(limits))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.middleware("http")(_add_headers)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(SearchError, _not_searchable)
    app.add_exception_handler(Exception, _failed)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(router)
    app.add_api_route("/", _page, include_in_schema=False)
    return app


@asynccontextmanager
async def _draw_map(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.map = asyncio.create_task(run_in_threadpool(make_map, service.finder.index))
    yield


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    if request.url.path.startswith("/api/") and "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    wait = {"Retry-After": "5"} if error.status == 503 else None
    return JSONResponse({"error": error.reason}, error.status, headers=wait)


async def _not_searchable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log says why."}, 500)
