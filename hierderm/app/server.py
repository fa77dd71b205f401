"""The web application: the page, the API, security headers and errors. Nothing of a request is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from hierderm import __version__
from hierderm.app.following import Following
from hierderm.app.guard import Guard, check_token
from hierderm.app.request_queue import RequestQueue
from hierderm.app.routes import Service, router
from hierderm.app.uploads import Limits, RefusedError, Uploads
from hierderm.errors import DatabaseError, SearchError
from hierderm.search.finder import CaseFinder

STATIC = Path(__file__).parent / "static"
IMAGES_AT_ONCE, IMAGES_WAITING = 2, 1000  # images of the index that are scaled; a page asks for dozens
_HINTS = {503: {"Retry-After": "5"}, 408: {"Connection": "close"}}  # a slow client must not go on with its body
logger = logging.getLogger(__name__)


def create_app(
    finder: CaseFinder, *, limits: Limits | None = None, hosts: Sequence[str] = ("*",), token: str = ""
) -> FastAPI:
    """The web application on an open index; it follows the index's folder.

    Args:
        finder: The index and its model.
        limits: Limits on uploads and searches.
        hosts: Host names the application answers to, so that no other site can rebind its name to it.
        token: What clients must send, at least 16 characters; '' for none.

    Raises:
        ConfigError: The token is too short.
        SearchError: The model of the index is missing, or another one is in its place.
    """
    limits = limits or Limits()
    _ = finder.takes_text  # load the model now: a missing or foreign one must not wait for the first request
    app = FastAPI(title="hierderm", version=__version__, docs_url=None, redoc_url=None, lifespan=_follow)
    following = Following(finder)
    searches = RequestQueue("searches", limits.at_once, limits.waiting)
    images = RequestQueue("images", IMAGES_AT_ONCE, IMAGES_WAITING)
    app.state.service = Service(following, limits, Uploads(limits), searches, images)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, token=token and check_token(token), generation=lambda: following.generation)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(SearchError, _not_searchable)
    app.add_exception_handler(DatabaseError, _unreachable)
    app.add_exception_handler(Exception, _failed)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(router)
    app.add_api_route("/", _page, include_in_schema=False)
    return app


@asynccontextmanager
async def _follow(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    following = asyncio.create_task(service.following.follow())
    await asyncio.sleep(0)  # so that the map is being drawn before the first request
    yield
    following.cancel()


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": error.reason}, error.status, headers=_HINTS.get(error.status))


async def _not_searchable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


async def _unreachable(_: Request, error: Exception) -> JSONResponse:
    logger.error("%s", error)
    reason = "the database of the index does not answer. Try again in a few seconds."
    return JSONResponse({"error": reason}, 503, headers=_HINTS[503])


async def _failed(_: Request, error: Exception) -> JSONResponse:
    logger.error("a request failed", exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log says why."}, 500)
