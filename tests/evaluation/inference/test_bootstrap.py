from __future__ import annotations

import numpy as np
import pytest

from hierderm.evaluation.inference.bootstrap import case_draws, interval, resampled_means

CASES = np.array(["a", "a", "b", "c", "c", "c"])


def test_whole_cases_are_drawn() -> None:
    draws = case_draws(CASES, 200, seed=0)
    assert (draws[:, 0] == draws[:, 1]).all() and (draws[:, 3] == draws[:, 5]).all()
    assert (draws[:, [0, 2, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(draws, case_draws(CASES, 200, seed=0))


def test_parts_of_one_whole_see_the_same_draws() -> None:
    whole = case_draws(CASES, 200, seed=0)
    for rows in ([0, 1, 2], [5, 3, 2]):
        np.testing.assert_array_equal(case_draws(CASES[rows], 200, 0, among=CASES), whole[:, rows])


def test_means_leave_out_what_is_not_defined() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan])
    draws = np.array([[1, 1, 1, 1, 1, 1], [3, 3, 0, 0, 0, 0], [0, 0, 0, 3, 3, 3]], dtype=np.uint8)
    np.testing.assert_allclose(resampled_means(values, draws), [2, 1, np.nan])
    assert np.isnan(resampled_means(np.full(6, np.nan), draws)).all()


def test_the_interval_is_centred_on_the_value() -> None:
    low, high = interval(0.5, np.array([0.6, 0.7, 0.8]), confidence=0.9)
    assert [low, high] == pytest.approx([0.41, 0.59])
    assert np.isnan(interval(0.5, np.array([np.nan]))[0])


def test_the_interval_of_a_mean_has_the_textbook_width() -> None:
    rng = np.random.default_rng(0)
    values, cases = rng.normal(size=400), np.arange(400).astype(str)
    low, high = interval(values.mean(), resampled_means(values, case_draws(cases, 2000, 0)))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_images_of_a_case_are_not_independent() -> None:
    """Four copies of each image must not narrow the interval."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=100)
    cases = np.arange(100).astype(str)

    def width(copies: int) -> float:
        v, k = np.repeat(values, copies), np.repeat(cases, copies)
        low, high = interval(v.mean(), resampled_means(v, case_draws(k, 1000, 0)))
        return high - low

    assert width(4) == pytest.approx(width(1), rel=1e-6)


def test_several_columns_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 3))
    table[0, 1] = np.nan
    draws = case_draws(CASES, 150, 0)
    together = resampled_means(table, draws)
    for column in range(3):
        np.testing.assert_allclose(together[:, column], resampled_means(table[:, column], draws))
    assert resampled_means(table, draws[:0]).shape == (0, 3)
