from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierderm.evaluate.retrieval as retrieval
from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluate.retrieval import nearest_others, retrieval_scores


def circle(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def slow_oracle(embeddings: np.ndarray, labels: np.ndarray, cases: np.ndarray) -> tuple[list[float], list[float]]:
    hits, maps = [], []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if cases[i] != cases[query]]
        relevant = sum(labels[i] == labels[query] for i in others)
        if not relevant:
            hits.append(np.nan)
            maps.append(np.nan)
            continue
        ranked = sorted(others, key=lambda i: (-float(embeddings[query] @ embeddings[i]), i))
        found, total = 0, 0.0
        for rank, i in enumerate(ranked[:relevant], start=1):
            if labels[i] == labels[query]:
                found += 1
                total += found / rank
        hits.append(float(labels[ranked[0]] == labels[query]))
        maps.append(total / relevant)
    return hits, maps


def test_by_hand() -> None:
    # On a circle: query at 0 degrees with label 1, others at 10 (1), 20 (0), 30 (1). R = 2: the first two count.
    embeddings = circle(0, 10, 20, 30)
    scores = retrieval_scores(embeddings, [np.array([1, 1, 0, 1])], np.array(list("abcd")))[0]
    assert scores.map_at_r[0] == pytest.approx(0.5)
    assert scores.recall_at_1[0] == 1
    assert scores.n_relevant.tolist() == [2, 2, 0, 2]
    assert np.isnan(scores.map_at_r[2]) and scores.n_skipped == 1


def test_the_own_case_is_left_out() -> None:
    # The planted leak: image 1 is the query's twin of the same case. With it, recall@1 would be 1.
    embeddings = circle(0, 0.1, 5, 60)
    labels, cases = np.array([1, 1, 0, 1]), np.array(["x", "x", "y", "z"])
    scores = retrieval_scores(embeddings, [labels], cases)[0]
    assert scores.recall_at_1[0] == 0
    assert scores.n_relevant[0] == 1
    assert nearest_others(embeddings, cases, np.array([0]), 2).tolist() == [[2, 3]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 5))
def test_against_the_slow_oracle(seed: int, n: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = unit_length(rng.normal(size=(n, 3))).astype(np.float64)
    labels, cases = rng.integers(0, n_labels, n), rng.integers(0, n, n).astype(str)
    scores = retrieval_scores(embeddings, [labels], cases)[0]
    hits, maps = slow_oracle(embeddings, labels, cases)
    np.testing.assert_allclose(scores.recall_at_1, hits)
    np.testing.assert_allclose(scores.map_at_r, maps)


def test_chunks_and_partial_sorting_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    embeddings = unit_length(rng.integers(-2, 3, (200, 3)) + 0.5)  # many ties
    labels, cases = np.arange(200) // 5, np.arange(200).astype(str)
    whole = retrieval_scores(embeddings, [labels], cases)[0]
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    parts = retrieval_scores(embeddings, [labels], cases)[0]
    np.testing.assert_allclose(parts.map_at_r, whole.map_at_r)
    np.testing.assert_allclose(whole.map_at_r, slow_oracle(embeddings, labels, cases)[1])


def test_properties() -> None:
    rng = np.random.default_rng(1)
    labels, cases = np.repeat(np.arange(4), 5), np.arange(20).astype(str)
    perfect = np.eye(4)[labels]
    assert retrieval_scores(perfect, [labels], cases)[0].map_at_r.min() == 1
    embeddings = unit_length(rng.normal(size=(20, 4)))
    order = rng.permutation(20)
    one = retrieval_scores(embeddings, [labels], cases)[0]
    other = retrieval_scores(embeddings[order], [labels[order]], cases[order])[0]
    np.testing.assert_allclose(other.map_at_r, one.map_at_r[order])


def test_queries_without_relevant_images_are_a_named_choice() -> None:
    embeddings, labels, cases = circle(0, 10), np.array([0, 1]), np.array(["a", "b"])
    assert retrieval_scores(embeddings, [labels], cases, no_relevant="zero")[0].map_at_r.tolist() == [0, 0]
    with pytest.raises(EmbeddingError, match="2 queries have no relevant image"):
        retrieval_scores(embeddings, [labels], cases, no_relevant="error")
    with pytest.raises(EmbeddingError, match=r"must have a row an embedding \(2\), got \[3\] and 2"):
        retrieval_scores(embeddings, [np.zeros(3, dtype=int)], cases)
