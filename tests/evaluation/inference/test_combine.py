from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierderm.errors import EmbeddingError
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.bootstrap import case_draws, interval, resampled_means
from hierderm.evaluation.inference.combine import combine_folds, combine_repeats, combine_seeds
from hierderm.evaluation.inference.differences import paired_difference

KEY = ("fine", "map_at_r")


def evaluation(values: np.ndarray, cases: np.ndarray, name: str = "m", rounds: int = 1000) -> Evaluation:
    of_rounds = resampled_means(values, case_draws(cases, rounds, int(cases[0][1:])))
    metric = Metric(*KEY, float(values.mean()), *interval(float(values.mean()), of_rounds), len(values))
    return Evaluation(name, (metric,), (), len(values), len(cases), {KEY: of_rounds}, {KEY: values}, cases)


def cases(start: int, n: int) -> np.ndarray:
    return np.array([f"c{k}" for k in range(start, start + n)])


def test_folds_are_one_test_of_all_cases() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    of_folds = [evaluation(values[a:b], cases(a, b - a)) for a, b in ((0, 100), (100, 150), (150, 300))]
    together, apart = combine_folds(of_folds, 0.95), evaluation(values, cases(0, 300))
    assert together[KEY].value == pytest.approx(values.mean())
    assert together[KEY].high - together[KEY].low == pytest.approx(apart[KEY].high - apart[KEY].low, rel=0.1)
    assert (together.n_images, together[KEY].count, len(together.case_ids)) == (300, 300, 300)
    with pytest.raises(EmbeddingError, match="folds must not share test cases"):
        combine_folds([of_folds[0], of_folds[0]], 0.95)
    assert combine_folds(of_folds[:1], 0.95) is of_folds[0]


def test_seeds_of_equal_luck_change_nothing_and_luck_widens() -> None:
    values, ids = np.random.default_rng(0).normal(size=200), cases(0, 200)
    alone = evaluation(values, ids)
    same = combine_seeds([alone, alone, alone], 0.95, 0)
    assert same[KEY] == alone[KEY]
    shifted = [evaluation(values + shift, ids) for shift in (-0.3, 0.0, 0.3)]
    spread = combine_seeds(shifted, 0.95, 0)
    assert spread[KEY].value == pytest.approx(values.mean())
    assert spread[KEY].high - spread[KEY].low > 1.5 * (alone[KEY].high - alone[KEY].low)
    with pytest.raises(EmbeddingError, match="same test cases only"):
        combine_seeds([alone, evaluation(values, cases(500, 200))], 0.95, 0)


def test_the_interval_over_seeds_covers() -> None:
    """Trainings whose metric is 0 +- 0.1, three seeds each, without any variance of the cases."""
    covered = 0
    for number in range(300):
        rng = np.random.default_rng(number)
        seeds = [evaluation(np.full(20, shift), cases(0, 20), rounds=400) for shift in rng.normal(0, 0.1, 5)]
        low, high = (lambda m: (m.low, m.high))(combine_seeds(seeds, 0.95, number)[KEY])
        covered += low <= 0 <= high
    assert covered / 300 > 0.85  # five seeds: the percentile interval is somewhat short, and documented as such


def test_combined_models_are_compared_as_single_ones() -> None:
    values, ids = np.random.default_rng(0).normal(size=200), cases(0, 200)
    first = combine_seeds([evaluation(values + 0.5 + s, ids, "a") for s in (0, 0.01)], 0.95, 0)
    second = combine_seeds([evaluation(values + s, ids, "b") for s in (0, 0.01)], 0.95, 0)
    difference = paired_difference(first, second, KEY, 0.95)
    assert difference is not None and difference.better and difference.value == pytest.approx(0.5)
    assert difference.high - difference.low < 0.05
    with pytest.raises(EmbeddingError, match="same images"):
        paired_difference(first, replace(second, case_ids=ids[::-1]), KEY, 0.95)


def repeats(values: list[np.ndarray], name: str = "m") -> list[Evaluation]:
    """One evaluation for each division of the same 200 cases, whose images come in another order each time."""
    found = []
    for number, of_division in enumerate(values):
        order = np.random.default_rng(number).permutation(200)
        ids = cases(0, 200)
        draws = case_draws(ids[order], 1000, 0, among=ids)
        of_rounds, mean = resampled_means(of_division[order], draws), float(of_division.mean())
        metric = Metric(*KEY, mean, *interval(mean, of_rounds), 200)
        per_image = {KEY: of_division[order]}
        found.append(Evaluation(name, (metric,), (), 200, 200, {KEY: of_rounds}, per_image, ids[order]))
    return found


def test_repeats_are_aligned_by_case_and_steady_each_case() -> None:
    """A case's value is 1 of its own and 1 of the division: three repeats leave the interval of sqrt(1 + 1/3)."""
    rng = np.random.default_rng(0)
    own, shifts = rng.normal(size=200), [rng.normal(size=200) for _ in range(3)]
    shifts = [shift - shift.mean() for shift in shifts]  # so that the means over cases agree
    divided = repeats([own + shift for shift in shifts])
    together = combine_repeats(divided, 0.95, 0)
    assert together[KEY].value == pytest.approx(own.mean())
    width = (together[KEY].high - together[KEY].low) / 2
    assert width == pytest.approx(1.96 * np.std(own + np.mean(shifts, axis=0)) / np.sqrt(200), rel=0.08)
    np.testing.assert_array_equal(together.case_ids, np.sort(cases(0, 200)))
    place = np.argsort(cases(0, 200))
    np.testing.assert_allclose(together.per_image[KEY], (own + np.mean(shifts, axis=0))[place])
    with pytest.raises(EmbeddingError, match="repeats must test the same cases"):
        combine_repeats([divided[0], evaluation(own, cases(500, 200))], 0.95, 0)


def test_an_image_has_the_mean_of_the_divisions_that_know_it() -> None:
    values = [np.ones(200), np.full(200, 3.0)]
    divided = repeats(values)
    for evaluation_, unknown in zip(divided, (["c0", "c1"], ["c1", "c2"]), strict=True):
        evaluation_.per_image[KEY][np.isin(evaluation_.case_ids, unknown)] = np.nan
    together = combine_repeats(divided, 0.95, 0)
    by_case = dict(zip(together.case_ids, together.per_image[KEY], strict=True))
    assert (by_case["c0"], by_case["c2"], by_case["c3"]) == (3, 1, 2)
    assert np.isnan(by_case["c1"])


def test_the_luck_of_a_division_is_shared_by_the_models() -> None:
    own = np.random.default_rng(0).normal(size=200)
    hard = [-0.5, 0.0, 0.5]  # a division that is hard for one model is hard for the other
    first = combine_repeats(repeats([own + h + 0.1 for h in hard], "a"), 0.95, 0)
    second = combine_repeats(repeats([own + h for h in hard], "b"), 0.95, 0)
    assert first[KEY].high - first[KEY].low > 0.5
    difference = paired_difference(first, second, KEY, 0.95)
    assert difference is not None and difference.value == pytest.approx(0.1)
    assert difference.high - difference.low < 1e-6


def test_a_metric_that_some_parts_lack_is_the_mean_of_the_others_and_said() -> None:
    def part(case: str, severity: float, gap: bool = False) -> Evaluation:
        metrics = [Metric("tree", "mistake_severity", severity, np.nan, np.nan, 2)]
        metrics += [Metric("fine", "few_shot_1", 0.5, np.nan, np.nan, 2)] if gap else []
        rounds = {(m.level, m.name): np.full(4, m.value) for m in metrics}
        return Evaluation("m", tuple(metrics), (), 2, 1, rounds, {}, np.array([case, case]))

    seeds = combine_seeds([part("a", 1.0), part("a", np.nan, gap=True), part("a", 2.0)], 0.95, 0)
    folds = combine_folds([part("a", 1.0), part("b", np.nan, gap=True), part("c", 2.0)], 0.95)
    for found, what in ((seeds, "trainings"), (folds, "folds")):
        assert found["tree", "mistake_severity"].value == 1.5 and found["fine", "few_shot_1"].value == 0.5
        assert found.warnings == (
            f"Means over those of the 3 {what} in which the metric is defined: tree Severity of wrong nearest (2), "
            "fine Few-shot accuracy, 1 image (1).",
        )
    nowhere = combine_seeds([part("a", np.nan), part("a", np.nan)], 0.95, 0)
    assert np.isnan(nowhere["tree", "mistake_severity"].value) and nowhere.warnings == ()
