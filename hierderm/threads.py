"""How many threads the libraries beneath use: one number for torch, BLAS, OpenMP and FAISS alike."""

from __future__ import annotations

import os

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
