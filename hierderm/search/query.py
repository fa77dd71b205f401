"""What a search is asked: the vectors of each query, checked, and its options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierderm.embeddings import UNIT_TOLERANCE
from hierderm.errors import SearchError
from hierderm.types import Floats, IntArray, Vectors

MAX_IMAGES = 3  # of one query case
MOST_CASES = 1_000_000  # that are found for it


def query_groups(vectors: Floats, cases: IntArray | Sequence[int] | None, dim: int) -> list[Vectors]:
    """The vectors of each query, shape (n_images, dim) with one to three images.

    `vectors`: shape (n, dim), or (dim,) for one query; `cases`: the query of each vector, numbered from 0, shape (n,);
    None: each vector is a query.
    """
    try:
        if np.iscomplexobj(vectors):
            raise ValueError("they are complex numbers")
        rows = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise SearchError(f"a query must be vectors, such as model.encode(images) gives ({error}).") from None
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise SearchError(f"query vectors must have shape (n, {dim}), got {np.shape(vectors)}.")
    if not np.isfinite(rows).all() or (len(rows) and np.abs(np.linalg.norm(rows, axis=1) - 1).max() > UNIT_TOLERANCE):
        raise SearchError("query vectors must be finite and have unit length. Normalise them.")
    if cases is None or len(cases) == len(rows) == 0:
        return list(rows[:, None])
    numbers = np.asarray(cases)
    if numbers.shape != (len(rows),) or not np.issubdtype(numbers.dtype, np.integer) or (numbers < 0).any():
        raise SearchError(f"cases must number the query of each of the {len(rows)} vectors from 0, got {numbers}.")
    counts = np.bincount(numbers)
    if len(wrong := counts[(counts < 1) | (counts > MAX_IMAGES)]):
        raise SearchError(f"a query must have 1 to {MAX_IMAGES} images, got {wrong[:5]}.")
    return np.split(rows[np.argsort(numbers, kind="stable")], np.cumsum(counts)[:-1])


def check_options(k: int, aggregation: str, per_condition: int) -> None:
    """SearchError where an option of a search has no meaning."""
    whole = all(isinstance(number, int | np.integer) for number in (k, per_condition))
    if not whole or not 1 <= k <= MOST_CASES or per_condition < 0:
        raise SearchError(
            f"k must be a whole number from 1 to {MOST_CASES:,} and per_condition one from 0, got {k} and "
            f"{per_condition}."
        )
    if aggregation not in ("best", "mean"):
        raise SearchError(f"aggregation must be 'best' or 'mean', got '{aggregation}'.")


def mean_vector(group: Vectors) -> Vectors:
    """The mean of a query's vectors at unit length, shape (1, dim)."""
    mean = group.mean(axis=0, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
