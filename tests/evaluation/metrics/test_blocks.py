"""Rankings of whole galleries against a plain sort, and what blocks and threads must not change."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from threading import Event, Timer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierderm.evaluation.metrics.blocks as module
from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.blocks import nearest_items, over_rankings, over_rankings_of_cases
from hierderm.evaluation.metrics.ranking import Labelled, Rankings
from hierderm.evaluation.metrics.retrieval import case_scores, retrieval_scores


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


def whole(results: Iterator[list[tuple[int, dict[str, list[int]]]]]) -> list[dict[str, list[int]]]:
    """The rankings of all queries as lists, in the order of the queries."""
    every = dict(ranking for block in results for ranking in block)
    assert sorted(every) == list(range(len(every)))
    return [every[query] for query in range(len(every))]


def lists(block: Iterator[Rankings]) -> list[tuple[int, dict[str, list[int]]]]:
    found = []
    for rankings in block:
        row = rankings.found.row
        for number, query in enumerate(rankings.queries.tolist()):
            order = rankings.order(slice(number, number + 1), int(rankings.n_ranked[number]))[0].tolist()
            places, depths = rankings.found.place[row == number].tolist(), rankings.depths[row == number].tolist()
            found.append((query, {"order": order, "places": places, "depths": depths}))
    return found


def expected(order: list[int], query_labels: np.ndarray, gallery_labels: np.ndarray) -> dict[str, list[int]]:
    depths = [int((gallery_labels[:, i] == query_labels).sum()) for i in order]
    places = [place for place, depth in enumerate(depths, start=1) if depth]
    return {"order": order, "places": places, "depths": [depth for depth in depths if depth]}


def test_by_hand() -> None:
    # Query at 0 degrees, category 0, condition 0. Others: 10 (0, 1), 20 (1, 3), 30 (0, 0), and its own case at 5.
    fine = np.array([0, 1, 3, 0, 0])
    images = Labelled(circle(0, 10, 20, 30, 5), np.stack([fine // 3, fine]), np.array(list("abcda")))
    first = whole(over_rankings(lists, images))[0]
    assert first == {"order": [1, 2, 3], "places": [1, 3], "depths": [1, 2]}


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40))
def test_against_a_plain_sort(seed: int, n: int, n_cases: int) -> None:
    images = toy(seed, n, n_cases)
    for query, found in enumerate(whole(over_rankings(lists, images))):
        order = slow_ranking(images, images, query)
        assert found == expected(order, images.labels[:, query], images.labels)


def test_a_gallery_of_its_own() -> None:
    queries, gallery = toy(0, 10, 30), toy(1, 50, 30)
    nearest = nearest_items(queries, gallery, k=3)
    for query, found in enumerate(whole(over_rankings(lists, queries, gallery))):
        order = slow_ranking(queries, gallery, query)
        assert found == expected(order, queries.labels[:, query], gallery.labels)
        assert nearest[query].tolist() == order[:3]


def test_ties_keep_the_order_of_the_gallery_and_signs_sort_right() -> None:
    # Similarities to the query: 0 (as -0.0 and as 0.0), -1, 1, 1.
    embeddings = np.array([[1, 0], [0.0, 1], [-0.0, 1], [-1, 0], [1, 0], [1, 0]], dtype=np.float32)
    images = Labelled(embeddings, np.zeros((1, 6), dtype=int), np.arange(6).astype(str))
    assert whole(over_rankings(lists, images))[0]["order"] == [4, 5, 1, 2, 3]
    assert nearest_items(images, k=4)[0].tolist() == [4, 5, 1, 2]


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = toy(2, 60, 40)
    once, scores = whole(over_rankings(lists, images)), retrieval_scores(images, gallery_effects=True)
    monkeypatch.setattr(module, "THREADS", 3)
    monkeypatch.setattr(module, "MOST_QUERIES", 7)
    monkeypatch.setattr(module, "SORTED", 180)
    assert whole(over_rankings(lists, images)) == once
    parts = retrieval_scores(images, gallery_effects=True)
    for level, other in zip(scores.levels, parts.levels, strict=True):
        for name, effect in level.effects.items():
            np.testing.assert_array_equal(other.values[name], level.values[name])
            np.testing.assert_allclose(other.effects[name].influence, effect.influence, atol=1e-12)


@pytest.mark.parametrize("of", ["images", "cases"])
def test_memory_grows_with_the_blocks_not_with_all_pairs(monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    monkeypatch.setattr(module, "PRODUCT", 2**18)
    monkeypatch.setattr(module, "SORTED", 2**16)
    monkeypatch.setattr(module, "THREADS", 1)
    rng, n = np.random.default_rng(0), 2000
    fine = rng.integers(0, 60, n)
    images = Labelled(unit_length(rng.normal(size=(n, 4))), np.stack([fine // 3, fine]), np.arange(n) // 2)
    tracemalloc.start()
    if of == "images":
        retrieval_scores(images, gallery_effects=True)
    else:
        case_scores(images, "best")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * {"images": 2000**2 / 2, "cases": 1000**2}[of]  # bytes: float32 of half the pairs; of all pairs


def test_cases_by_best_pair_against_all_pairs() -> None:
    images = toy(4, 40, 15)
    cases = np.unique(images.cases)
    members = {case: np.flatnonzero(images.cases == case) for case in cases}
    for number, found in enumerate(whole(over_rankings_of_cases(lists, images))):
        own = images.embeddings[members[cases[number]]]
        best = [float((own @ images.embeddings[members[case]].T).max()) for case in cases]
        assert found["order"] == sorted((i for i in range(len(cases)) if i != number), key=lambda i: (-best[i], i))


def test_nearest_items() -> None:
    images = Labelled(circle(0, 0.1, 5, 60), np.zeros((1, 4), dtype=int), np.array(["x", "x", "y", "z"]))
    assert nearest_items(images, k=2)[0].tolist() == [2, 3]
    assert nearest_items(images, k=5)[0].tolist() == [2, 3, -1, -1, -1]


def test_an_error_of_the_work_reaches_the_caller() -> None:
    def broken(block: Iterator[Rankings]) -> None:
        raise EmbeddingError("no")

    with pytest.raises(EmbeddingError, match="no"):
        list(over_rankings(broken, toy(0, 20, 20)))


def test_threads_stop_where_nobody_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS", 2)
    monkeypatch.setattr(module, "MOST_QUERIES", 20)
    monkeypatch.setattr(module, "SORTED", 1)  # a part a query
    images = toy(0, 200, 200)
    first, closed, seen = int(np.lexsort(images.labels[::-1])[0]), Event(), []

    def slow(block: Iterator[Rankings]) -> None:
        for number, rankings in enumerate(block):
            seen.extend(rankings.queries.tolist())
            if number == 0 and seen[-1] != first:
                closed.wait(10)  # all blocks but the first are in the middle of their work then

    results = over_rankings(slow, images)
    next(results)
    Timer(0.1, closed.set).start()
    results.close()  # type: ignore[attr-defined]
    assert 20 <= len(seen) <= 22


def test_the_gallery_must_fit_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GALLERY", 20)
    with pytest.raises(EmbeddingError, match="the gallery must have fewer than 20 items, got 20"):
        list(over_rankings(lists, toy(0, 20, 20)))
