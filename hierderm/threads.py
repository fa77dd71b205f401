"""Threads: one number for torch, BLAS, OpenMP and FAISS alike, and work that several of ours do in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def n_threads() -> int:
    """Threads to compute with: OMP_NUM_THREADS, or the cores that the process may use, which a container can limit."""
    from joblib import cpu_count

    given = os.environ.get(VARIABLES[0], "").split(",")[0]  # OpenMP allows one number for each level of nesting
    return int(given or cpu_count())


def set_threads(n: int | None = None) -> None:
    """Set the threads of all libraries that are loaded from now on, here and in processes that are started.

    Call it before numpy and torch are imported. `n`: >= 1, by default `n_threads()`.
    """
    for name in VARIABLES:
        os.environ[name] = str(n or n_threads())


def one_thread(kind: Literal["blas", "openmp"]) -> AbstractContextManager[object]:
    """Lets libraries of this kind compute on one thread from now on to the end of a `with` block.

    Of OpenMP that is so for the calling thread alone. Of libraries those that are loaded at the first call: to look for
    them takes milliseconds.
    """
    limited: AbstractContextManager[object] = _libraries(kind).limit(limits=1)
    return limited


@cache
def _libraries(kind: str) -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=kind)


def in_order(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """The results of `work`, done by a pool, in the order of the items; at most `ahead` items are begun early."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
