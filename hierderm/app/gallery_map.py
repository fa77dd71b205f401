"""A map of the gallery in the plane, and the place of a query on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierderm.plots import project
from hierderm.search.case_index import CaseIndex
from hierderm.search.gallery import Gallery
from hierderm.types import FloatArray, IntArray, Vectors

POINTS = 1500
NEIGHBOURS, TEMPERATURE = 5, 0.05


@dataclass(frozen=True)
class GalleryMap:
    """`rows`: numbers of the drawn images in `gallery`, shape (n_points,); `points`: t-SNE, in [0, 1], (n_points, 2).

    It keeps the gallery that it was drawn of: the index may have changed since.
    """

    gallery: Gallery
    rows: IntArray
    points: FloatArray
    vectors: Vectors

    def place(self, embeddings: Vectors) -> tuple[float, float]:
        """The mean place of the drawn images most similar to a query, weighted by similarity.

        t-SNE can't place new images; this is the usual approximation.
        """
        similarity = (self.vectors @ embeddings.T).max(axis=1)
        near = np.argsort(-similarity)[:NEIGHBOURS]
        weights = np.exp((similarity[near] - similarity[near[0]]) / TEMPERATURE)
        x, y = (weights[:, None] * self.points[near]).sum(axis=0) / weights.sum()
        return float(x), float(y)


def make_map(index: CaseIndex, *, seed: int = 0) -> GalleryMap:
    """The map of up to 1,500 images of an index, chosen at random."""
    gallery = index.gallery
    rows = gallery.rows_at(np.sort(np.random.default_rng(seed).permutation(len(gallery))[:POINTS]))
    vectors = np.asarray(gallery.vectors_at(rows))
    points = np.asarray(project(vectors, seed), dtype=np.float64)
    span = np.ptp(points, axis=0)
    return GalleryMap(gallery, rows, (points - points.min(axis=0)) / np.where(span > 0, span, 1), vectors)
