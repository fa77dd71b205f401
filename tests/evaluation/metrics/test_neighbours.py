from __future__ import annotations

import numpy as np
import pytest

from hierderm.embeddings import unit_length
from hierderm.engines import KINDS, Engine, Kind
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.neighbours import (
    RecallSample,
    moved_away,
    nearest_proposed,
    true_shares,
    tune,
)
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.types import IntArray, Mask, Vectors


def made_up(n: int, seed: int, n_cases: int = 40, dim: int = 8) -> Labelled:
    rng = np.random.default_rng(seed)
    cases = np.array([f"c{k}" for k in rng.integers(0, n_cases, n)])
    return Labelled(unit_length(rng.normal(size=(n, dim))), np.zeros((1, n), dtype=np.int64), cases)


def slow_nearest(queries: Labelled, gallery: Labelled, k: int) -> list[list[int]]:
    found = []
    for vector, case in zip(queries.embeddings, queries.cases, strict=True):
        others = [i for i in range(len(gallery)) if gallery.cases[i] != case]
        ranked = sorted(others, key=lambda i: (-float(vector @ gallery.embeddings[i]), i))[:k]
        found.append(ranked + [-1] * (k - len(ranked)))
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_proposed_neighbours(kind: Kind) -> None:
    gallery = made_up(600, 2, n_cases=200)
    engine = Engine.build(kind, gallery.embeddings)
    recall = tune(engine, RecallSample(gallery.embeddings, own=True), 0.95)
    exact = nearest_items(gallery, k=5)
    found = nearest_proposed(engine, gallery, gallery, 5)
    assert found.shape == exact.shape and (gallery.cases[found] != gallery.cases[:, None]).all()
    least = 0.8 if kind == "ivfpq" else 0.95  # so few vectors get codes of four bits
    assert recall >= least and true_shares(found, exact).mean() >= least
    similarity = np.einsum("nkd,nd->nk", gallery.embeddings[found], gallery.embeddings)
    assert (np.diff(similarity, axis=1) <= 1e-6).all()  # in the order of the stored vectors
    engine.effort = engine.max_effort
    assert true_shares(nearest_proposed(engine, gallery, gallery, 5), exact).mean() >= recall - 0.02


def test_a_query_that_an_engine_finds_too_little_for_is_compared_with_all() -> None:
    gallery = made_up(400, 3, n_cases=5)  # of 64 proposals for a query, a fifth is of its own case
    engine = Engine.build("ivf", gallery.embeddings)  # looks at one of its lists, of about 40
    assert (engine.propose(gallery.embeddings, 64) < 0).any()
    wanted = [row.count(-1) for row in slow_nearest(gallery, gallery, 60)]
    assert (nearest_proposed(engine, gallery, gallery, 60) < 0).sum(axis=1).tolist() == wanted


def test_shares_of_true_neighbours() -> None:
    found = np.array([[1, 2, -1], [5, 6, 7], [-1, -1, -1]])
    exact = np.array([[2, 3, -1], [7, 6, 5], [-1, -1, -1]])
    assert true_shares(found, exact)[:2].tolist() == [0.5, 1]
    assert np.isnan(true_shares(found, exact)[2])  # nothing to find: neither found nor missed


def test_a_single_image_has_nothing_to_miss() -> None:
    gallery = made_up(1, 3)
    engine = Engine.build("hnsw", gallery.embeddings)
    assert [RecallSample(gallery.embeddings, own=own).recall(engine) for own in (True, False)] == [1, 1]


def test_a_recall_sample_leaves_the_image_itself_out() -> None:
    sample = RecallSample(made_up(300, 4).embeddings, own=True)
    assert not (sample.exact == sample.queries.cases[:, None]).any()
    engine = Engine.build("hnsw", sample.gallery.embeddings)
    assert sample.recall(engine) > 0.95
    engine.propose = lambda queries, n, allowed=None: np.full((len(queries), n), -1)  # type: ignore[method-assign]
    assert sample.recall(engine) == 1  # nothing found: all are compared


def test_an_image_is_moved_away_from_its_nearest_by_their_distance() -> None:
    image, nearest = np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([[0.6, 0.8], [0, 1]], dtype=np.float32)
    by_hand = np.array([[1.4, -0.8], [0, 1]]) / [[np.sqrt(2.6)], [1]]
    np.testing.assert_allclose(moved_away(image, nearest), by_hand, atol=1e-6)  # a copy of the nearest stays


def test_recall_is_promised_for_images_that_the_gallery_does_not_hold() -> None:
    gallery = made_up(900, 5).embeddings
    engine, nearest = Engine.build("hnsw", gallery), {row.tobytes(): np.argsort(-gallery @ row)[:64] for row in gallery}

    def by_heart(queries: Vectors, n: int, allowed: Mask | None = None) -> IntArray:
        """Knows the neighbours of the images that it was built of, and of no others."""
        return np.array([nearest.get(query.tobytes(), np.arange(n)) for query in queries])

    engine.propose = by_heart  # type: ignore[method-assign]
    assert RecallSample(gallery, own=True).recall(engine) == 1
    promised = RecallSample(gallery, own=False)
    assert promised.recall(engine) < 0.2
    similarity = promised.queries.embeddings @ gallery.T
    assert (promised.exact == np.argsort(-similarity, axis=1, kind="stable")[:, :10]).all()
