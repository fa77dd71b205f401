"""The nearest images of other cases among those that an index proposes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from hierderm.embeddings import unit_length
from hierderm.engines import Engine
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.ranking import K, Labelled
from hierderm.progress import Progress
from hierderm.threads import n_threads
from hierderm.types import FloatArray, IntArray, Vectors

COPIED = 2**22  # numbers of proposed vectors at a time
TOGETHER = 2**14  # queries that an engine is asked at a time
RECALL_QUERIES = 200


def n_proposed(k: int, n_gallery: int) -> int:
    """How many rows an engine proposes for `k` results: several times as many, as images of a case come together."""
    return min(n_gallery, max(64, 8 * k))


def nearest_proposed(engine: Engine, queries: Labelled, gallery: Labelled, k: int) -> IntArray:
    """As `nearest_items`, among the rows that an engine over the gallery proposes, compared by the gallery's vectors.

    Where an engine finds too few, the query is compared with the whole gallery.
    """
    own, cases = case_numbers(queries, gallery)
    sizes = np.bincount(cases, minlength=max(own.max(initial=0), cases.max(initial=0)) + 1)
    wanted = np.minimum(k, len(gallery) - sizes[own])
    n = n_proposed(k, len(gallery))
    found = np.full((len(queries), k), -1)
    part = max(1, COPIED // (n * gallery.embeddings.shape[1]))

    def compare(start: int, proposed: IntArray) -> None:
        """The best of what is proposed for a part of the queries, which begins at `start`."""
        rows, some = np.sort(proposed, axis=1), slice(start, start + len(proposed))
        vectors = gallery.embeddings[rows]  # (n_part, n, dim)
        similarity = np.matmul(vectors, queries.embeddings[some, :, None])[:, :, 0]
        similarity[(rows < 0) | (cases[rows] == own[some, None])] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(rows, order, axis=1)
        found[some, : order.shape[1]] = np.where(np.take_along_axis(similarity, order, axis=1) > -np.inf, best, -1)

    with ThreadPoolExecutor(min(4, n_threads())) as pool, Progress("Searching", len(queries), unit="images") as step:
        for begin in range(0, len(queries), TOGETHER):
            proposed = engine.propose(queries.embeddings[begin : begin + TOGETHER], n)
            starts = range(0, len(proposed), part)
            list(pool.map(compare, [begin + s for s in starts], [proposed[s : s + part] for s in starts]))
            step.update(len(proposed))
    short = np.flatnonzero((found >= 0).sum(axis=1) < wanted)
    if len(short):
        found[short] = nearest_items(select(queries, short), gallery, k=k)
    return found


def select(images: Labelled, rows: IntArray) -> Labelled:
    """Some of the images."""
    return Labelled(images.embeddings[rows], images.labels[:, rows], images.cases[rows])


class RecallSample:
    """Some queries of a gallery and the images that are exactly nearest to each.

    `vectors`: unit length, shape (n_images, dim). `own`: the queries are images of the gallery, each itself left out;
    else they are like images that it does not hold (`moved_away`).
    """

    def __init__(self, vectors: Vectors, *, own: bool) -> None:
        n = len(vectors)
        self.gallery = Labelled(vectors, np.zeros((1, n), dtype=np.int64), np.arange(n))
        rows = np.sort(np.random.default_rng(0).permutation(n)[:RECALL_QUERIES])
        self.queries = select(self.gallery, rows)
        if not own:
            nearest = nearest_items(self.queries, self.gallery, k=1)[:, 0] if n > 1 else rows
            moved = moved_away(self.queries.embeddings, vectors[nearest])
            self.queries = Labelled(moved, self.queries.labels, np.full(len(rows), -1))
        self.exact = nearest_items(self.queries, self.gallery, k=K)

    def recall(self, engine: Engine) -> float:
        """Share of the exact 10 nearest that are found among the rows that `engine` proposes, in [0, 1].

        1 in a gallery of a single image, which has nothing to miss.
        """
        shares = true_shares(nearest_proposed(engine, self.queries, self.gallery, K), self.exact)
        return 1.0 if np.isnan(shares).all() else float(np.nanmean(shares))


def moved_away(images: Vectors, nearest: Vectors) -> Vectors:
    """Queries like images that a gallery does not hold: each image moved away from its nearest by their distance.

    An approximate structure finds the neighbours of its own images more easily than those of others: a graph of a
    million images .98 of the ten nearest of its own at an effort that finds .91 for new and for moved ones alike
    (`benchmarks/gallery.py`). Both of shape (n_images, dim), unit length.
    """
    return unit_length(2 * images - nearest)


def true_shares(found: IntArray, exact: IntArray) -> FloatArray:
    """Which share of the items in each row of `exact` is in that row of `found`, in [0, 1], shape (n_queries,).

    Both shape (n_queries, k), -1 where there are fewer. nan where nothing is to be found.
    """
    known = exact >= 0
    both = (found[:, :, None] == exact[:, None, :]).any(axis=1) & known
    total = known.sum(axis=1)
    return np.where(total > 0, both.sum(axis=1) / np.maximum(total, 1), np.nan)


def tune(engine: Engine, sample: RecallSample, wanted: float) -> float:
    """Double the effort of an engine over a gallery until its recall@10 is `wanted`, or to its limit; the recall."""
    recall = sample.recall(engine)
    while recall < wanted and engine.effort < engine.max_effort:
        engine.effort = min(2 * engine.effort, engine.max_effort)
        recall = sample.recall(engine)
    return recall


def case_numbers(queries: Labelled, gallery: Labelled) -> tuple[IntArray, IntArray]:
    """The cases of both as numbers that can be compared."""
    if queries is gallery:
        numbers = pd.factorize(gallery.cases)[0]
        return numbers, numbers
    numbers = pd.factorize(np.concatenate([queries.cases, gallery.cases]))[0]
    return numbers[: len(queries)], numbers[len(queries) :]
