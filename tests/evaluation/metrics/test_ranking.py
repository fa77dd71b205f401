from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierderm.evaluation.metrics.ranking as module
from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.ranking import (
    Labelled,
    Ranking,
    case_means,
    nearest_others,
    rankings,
    rankings_by_best,
    rankings_of_hits,
)


def circle(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def toy(seed: int, n: int, n_cases: int, *, ties: bool = False) -> Labelled:
    """Random embeddings of a tree of two levels, three conditions a category."""
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(-1, 2, (n, 3)) + 0.5 if ties else rng.normal(size=(n, 3))
    fine = rng.integers(0, 6, n)
    return Labelled(unit_length(embeddings), np.stack([fine // 3, fine]), rng.integers(0, n_cases, n).astype(str))


def slow_ranking(queries: Labelled, gallery: Labelled, query: int) -> list[int]:
    """Positions of the gallery in order, by a plain sort."""
    similarity = (queries.embeddings[query : query + 1] @ gallery.embeddings.T)[0]
    others = [i for i in range(len(gallery)) if gallery.cases[i] != queries.cases[query]]
    return sorted(others, key=lambda i: (-float(similarity[i]), i))


def check(found: Ranking, order: list[int], query_labels: np.ndarray, gallery_labels: np.ndarray, k: int) -> None:
    depths = [int((gallery_labels[:, i] == query_labels).sum()) for i in order]
    assert found.nearest.tolist() == order[:k]
    assert found.ranks.tolist() == [place for place, depth in enumerate(depths, start=1) if depth]
    assert found.depths.tolist() == [depth for depth in depths if depth]
    assert found.n_ranked == len(order)


def test_by_hand() -> None:
    # Query at 0 degrees, category 0, condition 0. Others: 10 (0, 1), 20 (1, 3), 30 (0, 0), and its own case at 5.
    fine = np.array([0, 1, 3, 0, 0])
    images = Labelled(circle(0, 10, 20, 30, 5), np.stack([fine // 3, fine]), np.array(list("abcda")))
    first = next(iter(rankings(images, k=2)))
    assert first.nearest.tolist() == [1, 2]
    assert (first.ranks.tolist(), first.depths.tolist(), first.n_ranked) == ([1, 3], [1, 2], 3)
    assert first.relevant(0).tolist() == [1, 3] and first.relevant(1).tolist() == [3]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.booleans())
def test_against_a_plain_sort(seed: int, n: int, ties: bool) -> None:
    images = toy(seed, n, max(2, n // 2), ties=ties)
    for query, found in enumerate(rankings(images, k=4)):
        if not ties:  # a product of other shape may round equal similarities apart
            check(found, slow_ranking(images, images, query), images.labels[:, query], images.labels, 4)
        assert len(found.nearest) == min(4, found.n_ranked)


def test_a_gallery_of_its_own() -> None:
    queries, gallery = toy(0, 10, 30), toy(1, 50, 30)
    for query, found in enumerate(rankings(queries, gallery, k=3)):
        check(found, slow_ranking(queries, gallery, query), queries.labels[:, query], gallery.labels, 3)


def test_ties_keep_the_order_of_the_gallery_and_signs_sort_right() -> None:
    # Similarities to the query: 0 (as -0.0 and as 0.0), -1, 1, 1.
    embeddings = np.array([[1, 0], [0.0, 1], [-0.0, 1], [-1, 0], [1, 0], [1, 0]], dtype=np.float32)
    images = Labelled(embeddings, np.zeros((1, 6), dtype=int), np.arange(6).astype(str))
    assert next(iter(rankings(images))).nearest.tolist() == [4, 5, 1, 2, 3]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = toy(2, 60, 60)
    whole = [(r.ranks.tolist(), r.nearest.tolist()) for r in rankings(images)]
    monkeypatch.setattr(module, "CHUNK", 7)
    assert [(r.ranks.tolist(), r.nearest.tolist()) for r in rankings(images)] == whole


def test_hits_give_the_first_part_of_the_ranking() -> None:
    images = toy(3, 30, 30)
    rows = np.array([ranking.nearest for ranking in rankings(images, k=5)])
    rows[0, 3:] = -1  # a search that found three
    cut = list(rankings_of_hits(rows, images.labels, images.labels))
    assert cut[0].n_ranked == 3 and cut[1].n_ranked == 5
    for short, whole in zip(cut, rankings(images), strict=True):
        kept = whole.ranks <= short.n_ranked
        assert short.ranks.tolist() == whole.ranks[kept].tolist()
        assert short.depths.tolist() == whole.depths[kept].tolist()


def test_cases_by_best_pair_against_all_pairs() -> None:
    images = toy(4, 40, 15)
    cases = np.unique(images.cases)
    members = {case: np.flatnonzero(images.cases == case) for case in cases}
    for number, found in enumerate(rankings_by_best(images, k=14)):
        own = images.embeddings[members[cases[number]]]
        best = [float((own @ images.embeddings[members[case]].T).max()) for case in cases]
        order = sorted((i for i in range(len(cases)) if i != number), key=lambda i: (-best[i], i))
        assert found.nearest.tolist() == order


def test_cases_by_mean() -> None:
    labels = np.array([[0, 1, 0]])
    means = case_means(Labelled(circle(0, 90, 20), labels, np.array(["b", "a", "b"])))
    np.testing.assert_allclose(means.embeddings, circle(90, 10), atol=1e-6)
    assert means.labels.tolist() == [[1, 0]] and means.cases.tolist() == ["a", "b"]


def test_nearest_others() -> None:
    embeddings, cases = circle(0, 0.1, 5, 60), np.array(["x", "x", "y", "z"])
    assert nearest_others(embeddings, cases, np.array([0]), 2).tolist() == [[2, 3]]


def test_refusals() -> None:
    with pytest.raises(EmbeddingError, match=r"labels must have shape \(n_levels, 2\) and cases \(2,\)"):
        Labelled(circle(0, 1), np.zeros((1, 3), dtype=int), np.array(["a", "b"]))
    with pytest.raises(EmbeddingError, match="labels must be of 1 to 7 levels, got 8"):
        Labelled(circle(0, 1), np.zeros((8, 2), dtype=int), np.array(["a", "b"]))
