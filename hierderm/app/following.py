"""The page follows its index: a new generation is opened beside the old and replaces it in one step."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from hierderm.app.gallery_map import GalleryMap, make_map
from hierderm.app.uploads import RefusedError
from hierderm.search.finder import CaseFinder, FinderResult

INTERVAL = 0.25  # seconds between two looks at the index
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """One generation: its finder, and the map of its images, which may still be computed."""

    finder: CaseFinder
    map: asyncio.Task[GalleryMap] | None = None

    def place(self, result: FinderResult) -> tuple[float, float] | None:
        """Where a query is on the map; None while there is no map."""
        drawn = self.map is not None and self.map.done() and self.map.exception() is None
        return self.map.result().place(result.vectors) if self.map is not None and drawn else None


class Following:
    """What is served now. A request takes `current` once, so that it sees one generation to its end."""

    def __init__(self, finder: CaseFinder) -> None:
        self._served, self._gone = Served(finder), False

    @property
    def current(self) -> Served:
        """RefusedError where the folder of the index has been deleted: its cases must not be shown any more."""
        if self._gone:
            raise RefusedError(503, "the index has been deleted on the server. It can be searched once it is back.")
        return self._served

    @property
    def generation(self) -> str:
        """Another value for each state of the index; '' where there is none to follow, or no index in it."""
        return "" if self._gone else self._served.finder.generation

    async def follow(self) -> None:
        """Draw the map, then look for a new generation until cancelled. One that can't be opened is logged and left."""
        self._take(self._served.finder)
        place, seen, told = self._served.finder.place, self.generation, ""
        while place is not None:
            await asyncio.sleep(INTERVAL)
            try:
                found = await run_in_threadpool(place.generation)
                told = ""
                if found == seen:
                    continue
                seen = found
                if found:
                    self._take(await run_in_threadpool(self._served.finder.reopened))
                    logger.info("%s has changed; its new cases are served", place)
                else:
                    self._gone = True
                    logger.error("%s has no index any more; searches are refused until one is there", place)
            except Exception as error:  # whatever is wrong with one generation, the next one may be whole
                if str(error) != told:  # a server that is down is so at every look
                    logger.error("%s can't be opened, so the page keeps the index it had: %s", place, error)
                told = str(error)

    def _take(self, finder: CaseFinder) -> None:
        drawing = asyncio.create_task(run_in_threadpool(make_map, finder.index))
        self._served, self._gone = Served(finder, drawing), False
