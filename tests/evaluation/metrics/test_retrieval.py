from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import (
    case_scores,
    hit_scores,
    retrieval_scores,
)


def circle(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def flat(embeddings: np.ndarray, labels: np.ndarray, cases: np.ndarray) -> Labelled:
    return Labelled(embeddings, labels[None], cases)


def slow_oracle(images: Labelled, query: int) -> dict[str, float]:
    """Every metric from its definition, with plain lists."""
    labels, cases, embeddings = images.labels[0], images.cases, images.embeddings
    others = [i for i in range(len(labels)) if cases[i] != cases[query]]
    ranked = sorted(others, key=lambda i: (-float(embeddings[query] @ embeddings[i]), i))
    right = [labels[i] == labels[query] for i in ranked]
    n_relevant = sum(right)
    if not n_relevant:
        return dict.fromkeys(
            ("recall_at_1", "recall_at_10", "precision_at_10", "r_precision", "map_at_r", "mrr"), np.nan
        )
    total = 0.0
    for rank in range(1, n_relevant + 1):
        if right[rank - 1]:
            total += sum(right[:rank]) / rank
    return {
        "recall_at_1": float(right[0]),
        "recall_at_10": float(any(right[:10])),
        "precision_at_10": sum(right[:10]) / 10,
        "r_precision": sum(right[:n_relevant]) / n_relevant,
        "map_at_r": total / n_relevant,
        "mrr": 1 / (right.index(True) + 1),
    }


def test_by_hand() -> None:
    # On a circle: query at 0 degrees with label 1, others at 10 (1), 20 (0), 30 (1). R = 2: the first two count.
    scores = retrieval_scores(flat(circle(0, 10, 20, 30), np.array([1, 1, 0, 1]), np.array(list("abcd")))).levels[0]
    assert scores.values["map_at_r"][0] == pytest.approx(0.5)
    assert scores.values["recall_at_1"][0] == 1
    assert scores.n_relevant.tolist() == [2, 2, 0, 2]
    assert np.isnan(scores.values["map_at_r"]).tolist() == [False, False, True, False]


def test_the_own_case_is_left_out() -> None:
    # The planted leak: image 1 is the query's twin of the same case. With it, recall@1 would be 1.
    images = flat(circle(0, 0.1, 5, 60), np.array([1, 1, 0, 1]), np.array(["x", "x", "y", "z"]))
    scores = retrieval_scores(images).levels[0]
    assert scores.values["recall_at_1"][0] == 0
    assert scores.n_relevant[0] == 1


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 5))
def test_against_the_slow_oracle(seed: int, n: int, n_labels: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = unit_length(rng.normal(size=(n, 3))).astype(np.float64)
    images = flat(embeddings, rng.integers(0, n_labels, n), rng.integers(0, n, n).astype(str))
    scores = retrieval_scores(images).levels[0].values
    expected = [slow_oracle(images, query) for query in range(n)]
    for name in expected[0]:
        np.testing.assert_allclose(scores[name], [row[name] for row in expected])


def test_properties() -> None:
    rng = np.random.default_rng(1)
    labels, cases = np.repeat(np.arange(4), 5), np.arange(20).astype(str)
    perfect = retrieval_scores(flat(np.eye(4)[labels], labels, cases)).levels[0].values
    for name in ("recall_at_1", "recall_at_10", "map_at_r", "r_precision", "mrr", "knn_accuracy"):
        assert perfect[name].min() == 1
    embeddings, order = unit_length(rng.normal(size=(20, 4))), rng.permutation(20)
    one = retrieval_scores(flat(embeddings, labels, cases)).levels[0].values
    other = retrieval_scores(flat(embeddings[order], labels[order], cases[order])).levels[0].values
    np.testing.assert_allclose(other["map_at_r"], one["map_at_r"][order])


def test_levels_and_tree() -> None:
    # Categories {0, 1} and {2}: the query's neighbours are 10 (its category), 20 (another), 30 (its condition).
    fine = np.array([0, 1, 2, 0])
    images = Labelled(circle(0, 10, 20, 30), np.stack([fine // 2, fine]), np.array(list("abcd")))
    scores = retrieval_scores(images)
    coarse, finest = scores.levels
    assert (coarse.values["recall_at_1"][0], finest.values["recall_at_1"][0]) == (1, 0)
    assert scores.tree["mistake_severity"][0] == 1
    assert scores.tree["lca_height_at_10"][0] == pytest.approx((1 + 2 + 0) / 3)
    assert np.isnan(scores.tree["hap"][2])  # nothing shares the category of the third
    assert scores.tree["lca_height_at_10"][2] == 2  # but its height is defined


def test_cases_of_several_images() -> None:
    # Case a: images at 0 and 80 degrees. Best pair: b at 79 (1 degree away); mean of a at 40: c at 42.
    embeddings = circle(0, 80, 79, 42)
    images = flat(embeddings, np.array([0, 0, 1, 0]), np.array(["a", "a", "b", "c"]))
    best, mean = (case_scores(images, how).levels[0].values["recall_at_1"] for how in ("best", "mean"))
    assert (best[0], mean[0]) == (0, 1)
    assert len(best) == 3
    assert set(case_scores(images, "best", metrics=["map_at_r"]).levels[0].values) == {"map_at_r", "knn_accuracy"}


def test_hits_of_a_search() -> None:
    fine = np.array([0, 1, 2, 0])
    images = Labelled(circle(0, 10, 20, 30), np.stack([fine // 2, fine]), np.array(list("abcd")))
    rows = nearest_items(images, k=2)
    coarse, finest = hit_scores(rows, images.labels, images.labels)
    assert (coarse["recall_at_1"][0], finest["recall_at_1"][0], finest["recall_at_2"][0]) == (1, 0, 0)
    assert coarse["precision_at_2"][0] == 0.5
    assert finest["lca_height_at_2"][0] == 1.5


def test_queries_without_relevant_images_are_a_named_choice() -> None:
    images = flat(circle(0, 10), np.array([0, 1]), np.array(["a", "b"]))
    assert retrieval_scores(images, no_relevant="zero").levels[0].values["map_at_r"].tolist() == [0, 0]
    with pytest.raises(EmbeddingError, match="2 queries have no relevant image"):
        retrieval_scores(images, no_relevant="error")
