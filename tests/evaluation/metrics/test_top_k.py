from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierderm.evaluation.metrics.top_k as module
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.top_k import count_relevant, top_k_scores, true_neighbours, with_loss


def test_by_hand() -> None:
    # Places 1 and 3 of three are relevant, four images are: (1 + 2/3) / 3. The second query finds one item only.
    rows, labels = np.array([[0, 1, 2], [3, -1, -1]]), np.array([[7, 8, 7, 8]])
    (found,) = top_k_scores(rows, np.array([[7, 8]]), labels, np.array([[4, 1]]))
    assert found["map_at_3"].tolist() == pytest.approx([(1 + 2 / 3) / 3, 1])
    assert found["precision_at_3"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert (found["recall_at_1"].tolist(), found["recall_at_3"].tolist()) == ([1, 1], [1, 1])
    assert found["knn_accuracy"].tolist() == [1, 1]
    (skipped,) = top_k_scores(rows, np.array([[7, 8]]), labels, np.array([[4, 0]]))
    assert np.isnan([values[1] for values in skipped.values()]).all()  # nothing is relevant: skipped


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12))
def test_against_definitions(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.stack([fine := rng.integers(0, 6, 30), fine // 2])[::-1]
    query_labels = np.stack([fine := rng.integers(0, 6, 9), fine // 2])[::-1]
    rows = np.array([rng.permutation(30)[:k] for _ in range(9)])
    totals = rng.integers(0, 20, (2, 9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", 4)
        found = top_k_scores(rows, query_labels, labels, totals)
    for level in range(2):
        for query in range(9):
            right = [labels[level, row] == query_labels[level, query] for row in rows[query]]
            total = totals[level, query]
            precision = [sum(right[: i + 1]) / (i + 1) for i in range(k) if right[i]]
            expected = {
                "recall_at_1": right[0], f"recall_at_{k}": any(right), f"precision_at_{k}": sum(right) / k,
                f"map_at_{k}": sum(precision) / max(1, min(k, total)),
            }  # fmt: skip
            for name, value in expected.items():
                assert found[level][name][query] == pytest.approx(float(value) if total else np.nan, nan_ok=True)


@pytest.mark.parametrize("of_cases", [False, True])
def test_relevant_images_and_cases(of_cases: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([fine := rng.integers(0, 5, 60), fine // 2])[::-1]
    cases = rng.integers(0, 15, 60).astype(str)
    gallery = Labelled(np.empty((60, 0)), labels, cases)
    queries = Labelled(np.empty((20, 0)), labels[:, :20], np.append(cases[:19], "new"))
    found = count_relevant(queries, gallery, of_cases=of_cases)
    for level in range(2):
        for query in range(20):
            others = (cases != queries.cases[query]) & (labels[level] == queries.labels[level, query])
            assert found[level, query] == (len(set(cases[others])) if of_cases else others.sum())


def test_losses_are_of_the_chosen_queries() -> None:
    served, exact = [{"m": np.array([0.5, 1.0, 0.25])}], [{"m": np.array([0.75, 0.25])}]
    (found,) = with_loss(served, exact, np.array([0, 2]))
    assert found["index_m"].tolist() == [0.5, 1.0, 0.25]
    np.testing.assert_array_equal(found["exact_m"], [0.75, np.nan, 0.25])
    np.testing.assert_array_equal(found["loss_m"], [0.25, np.nan, 0])
    shares = true_neighbours(np.array([[1, 2], [3, 4], [5, 6]]), np.array([[2, 9], [6, 5]]), np.array([0, 2]))
    np.testing.assert_array_equal(shares, [0.5, np.nan, 1])
