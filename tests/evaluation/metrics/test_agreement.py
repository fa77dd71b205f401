from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hierderm.evaluation.metrics.agreement import AGREEMENT, Contingency, expected_mutual_information

LABELS = np.array([0, 0, 0, 1, 1, 2])
CLUSTERS = np.array([1, 1, 0, 0, 0, 0])


def test_purity_by_hand() -> None:
    # cluster 1 holds two of label 0: pure. Cluster 0 holds 0, 1, 1, 2: two of four. 4 of 6 images; mean of 1 and 1/2.
    scores = Contingency(LABELS, CLUSTERS).agreement()
    assert scores["purity"] == pytest.approx(4 / 6)
    assert scores["purity_unweighted"] == pytest.approx(3 / 4)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40))
def test_agreement_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(pairs).T
    scores = Contingency(labels, clusters).agreement()
    for name, function in (
        ("nmi", metrics.normalized_mutual_info_score),
        ("ami", metrics.adjusted_mutual_info_score),
        ("ari", metrics.adjusted_rand_score),
        ("homogeneity", metrics.homogeneity_score),
        ("completeness", metrics.completeness_score),
        ("v_measure", metrics.v_measure_score),
    ):
        if name == "nmi" and len(set(labels)) == len(set(clusters)) == 1:
            continue  # one label in one cluster: scikit-learn's NMI is 1 by convention, as is our V
        assert scores[name] == pytest.approx(function(labels, clusters), abs=1e-9), name


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (40, 60), (5, 200)])
def test_expected_mutual_information_is_scikit_learns(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for n in (50, 3000):
        labels = np.minimum(rng.geometric(0.15, n), shape[0]) - 1  # a long tail
        table = metrics.cluster.contingency_matrix(labels, rng.integers(0, shape[1], n))
        expected = metrics.cluster.expected_mutual_information(table, n)
        (found,) = expected_mutual_information(table.sum(axis=1)[None], table.sum(axis=0)[None])
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_expected_mutual_information_of_few_and_of_many_expected_images(a: list[int], b: list[int]) -> None:
    """Sizes of every kind: pairs of a small mean go through the series, the others are summed."""
    a, b = (a, [*b, sum(a) - sum(b)]) if sum(b) < sum(a) else ([*a, sum(b) - sum(a)], b)
    sizes, others = (np.array([size for size in found if size]) for found in (a, b))
    expected = sum(information_by_hand(int(one), int(other), int(sizes.sum())) for one in sizes for other in others)
    (found,) = expected_mutual_information(sizes[None], others[None])
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def information_by_hand(a: int, b: int, total: int) -> float:
    """One pair's part of the expected mutual information, as it is defined, in whole numbers."""
    chances = {
        n: comb(a, n) * comb(total - a, b - n) / comb(total, b) for n in range(1, min(a, b) + 1) if b - n <= total - a
    }
    return sum(n / total * log(n * total / (a * b)) * chance for n, chance in chances.items())


def test_a_perfect_clustering_scores_one_and_names_do_not_matter() -> None:
    scores = Contingency(LABELS, np.array([2, 2, 2, 0, 0, 1])).agreement()
    assert all(value == pytest.approx(1) for value in scores.values())


def test_rounds_are_those_of_repeated_images() -> None:
    """Many rounds at once, of other sizes and totals, and one of no image, give what each gives by itself."""
    rng = np.random.default_rng(0)
    for n, n_labels, n_clusters in ((6, 3, 2), (40, 4, 9), (900, 3, 4), (900, 30, 40)):
        labels, clusters = rng.integers(0, n_labels, n), rng.integers(0, n_clusters, n)
        weights = rng.integers(0, 4, (5, n)) * np.array([1, 1, 1, 0, 30])[:, None]
        weights[2, 1:] = 0
        found = Contingency(labels, clusters).agreement(weights)
        assert np.isnan([values[3] for values in found.values()]).all()
        for number, times in ((number, times) for number, times in enumerate(weights) if times.any()):
            alone = np.repeat(labels, times), np.repeat(clusters, times)
            for name, value in Contingency(*alone).agreement().items():
                assert found[name][number] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), (n, number, name)


def test_sums_over_chances_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes, others = (rng.multinomial(900, np.full(k, 1 / k), 3) for k in (3, 4))
    whole = expected_mutual_information(sizes, others)
    for terms in (1, 50, 333):
        monkeypatch.setattr("hierderm.evaluation.metrics.agreement.TERMS", terms)
        np.testing.assert_array_equal(expected_mutual_information(sizes, others), whole)


def test_of_no_image_the_agreement_is_undefined() -> None:
    labels = np.array([0, 1, 1])
    found = Contingency(labels, labels).agreement(np.zeros(3, dtype=np.int64))
    assert set(found) == set(AGREEMENT) and np.isnan(list(found.values())).all()
