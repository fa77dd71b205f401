from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hierderm.evaluation.inference.differences import Difference, adjusted, bootstrap_p_value, holm, permutation_p_value

CASES = np.arange(60).astype(str)


def test_the_permutation_test_is_that_of_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.25, 1, 60)
    ours = permutation_p_value(differences, CASES, n_permutations=20_000)
    expected = stats.permutation_test((differences, np.zeros(60)), lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=20_000, rng=0).pvalue  # fmt: skip
    assert ours == pytest.approx(expected, abs=0.01)


def test_images_of_a_case_are_swapped_together() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, 60)
    once = permutation_p_value(differences, CASES)
    assert permutation_p_value(np.repeat(differences, 5), np.repeat(CASES, 5)) == pytest.approx(once)
    assert permutation_p_value(np.zeros(60), CASES) == 1
    known = np.where(np.arange(60) < 30, differences, np.nan)
    assert permutation_p_value(known, CASES) == permutation_p_value(differences[:30], CASES[:30])


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    values = [permutation_p_value(np.random.default_rng(s).normal(size=60), CASES, 400, seed=s) for s in range(200)]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_bootstrap_p_value() -> None:
    rounds = np.random.default_rng(0).normal(0.2, 0.1, 9999)
    assert bootstrap_p_value(0.2, rounds) == pytest.approx(2 * stats.norm.sf(2), abs=0.01)
    assert np.isnan(bootstrap_p_value(0.2, np.array([])))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = holm([0.5, np.nan, 0.6])
    assert found[0] == 1 and np.isnan(found[1]) and found[2] == 1
    assert holm([]) == []


def test_holm_keeps_the_error_of_the_family() -> None:
    rng = np.random.default_rng(0)
    wrong = [min(holm(rng.uniform(size=8).tolist())) < 0.05 for _ in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)


def test_adjusted_differences_keep_their_order() -> None:
    found = adjusted([Difference("fine", "ami", "a", str(p), 0.1, 0.0, 0.2, p) for p in (0.03, 0.01)])
    assert [(d.reference, d.p_adjusted) for d in found] == [("0.03", 0.03), ("0.01", 0.02)]
