"""Is a query like the index? Worked by hand, on exchangeable data, and with images that show no skin."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.errors import SearchError
from hierderm.json_files import checked
from hierderm.search.likeness import Likeness, LookSpace, distances_of, joined_looks


def learnt(embeddings: object, looks: object = None, wanted: float = 0.05) -> Likeness:
    near = np.asarray(embeddings, dtype=float)
    return Likeness.learn(
        np.stack([near, np.full(len(near), np.nan) if looks is None else np.asarray(looks)], 1), wanted
    )


def p_of(likeness: Likeness, embedding: float, look: float = np.nan) -> float:
    return float(likeness.p_values(np.array([[embedding, look]]))[0])


def refused(likeness: Likeness, embedding: float, look: float = np.nan, n_images: int = 1) -> str:
    judged = likeness.judge(np.array([embedding, look]), n_images=n_images)
    assert judged is not None and judged.refused == bool(judged.reason) == (judged.share <= likeness.wanted)
    return judged.reason


def test_p_values_by_hand() -> None:
    """Distances 0.1 to 0.9: a query at 0.85 has one as far, of ten with itself: (1 + 1) / (9 + 1)."""
    likeness = learnt(np.arange(1, 10) / 10, wanted=0.2)
    assert p_of(likeness, 0.85) == 0.2 and p_of(likeness, 0.05) == 1
    assert p_of(likeness, 0.9) == 0.2  # ties count as as far
    assert p_of(likeness, 1.5) == 0.1 and np.isnan(p_of(likeness, np.nan))
    assert refused(likeness, 0.75) == ""
    assert refused(likeness, 0.85) == (
        "This image is unlike the images of the index, most of all in what the model sees: of the 9 validation cases 1 was "
        "as far from every other case. So there is no answer, and the nearest cases say nothing."
    )
    assert likeness.judge(np.array([np.nan, 3.0])) is None  # nothing that it can compare


def test_the_smaller_of_two_p_values_counts_twice() -> None:
    likeness = learnt(np.arange(39) / 100, np.arange(39.0))
    assert p_of(likeness, 0.375, 20.5) == pytest.approx(2 * 2 / 40)
    assert p_of(likeness, 0.375, 38.5) == pytest.approx(2 * 1 / 40) and p_of(likeness, 0.1, 1) == 1
    assert p_of(likeness, 0.375) == pytest.approx(2 / 40)  # of vectors alone
    assert refused(likeness, 0.1, 99.0, n_images=2).startswith(
        "These images are unlike the images of the index, most of all in colours and detail: of the 39 validation cases none"
    )
    assert "in what the model sees" in refused(likeness, 2.0, 30.0) and not refused(likeness, 0.375, 37.5)


def test_too_few_validation_cases_refuse_nothing_and_say_so() -> None:
    few, enough = learnt(np.arange(18)), learnt(np.arange(19))
    assert not refused(few, 1e9) and refused(enough, 1e9)
    assert few.describe() == (
        "queries unlike the index are never refused: 18 validation cases are too few, for 5% of false alarms it takes 19 or "
        "more"
    )
    assert learnt([]).describe().startswith("queries unlike the index are never refused: 0 validation cases")
    assert np.isnan(p_of(learnt([]), 3.0))


def test_with_few_cases_the_looks_are_tested_alone() -> None:
    alone, both = (learnt(np.arange(n), np.arange(n)) for n in (38, 39))
    assert (len(alone.embedding), len(alone.look)) == (0, 38) and len(both.embedding) == 39
    assert not refused(alone, 1e9, 0) and "colours" in refused(alone, 0, 1e9) and refused(both, 1e9, 0)
    assert alone.describe().startswith("queries unlike the index in colours and detail are refused")
    assert both.describe().startswith(
        "queries unlike the index in what the model sees or in colours and detail are ref"
    )


def test_the_stated_false_alarms() -> None:
    """Each of 80 left out in turn, and judged by the test of the 79 others; a third of the looks are not known."""
    rng = np.random.default_rng(1)
    distances = rng.gamma(2, size=(80, 2))
    distances[::3, 1] = np.nan
    likeness = Likeness.learn(distances, 0.1)
    slow = [Likeness.learn(np.delete(distances, out, axis=0), 0.1).p_values(distances[[out]])[0] for out in range(80)]
    assert likeness.refused == (np.array(slow) <= 0.1).sum() == 7 and likeness.n_cases == 80
    assert likeness.describe() == (
        "queries unlike the index in what the model sees or in colours and detail are refused, and at most 10% of those "
        "like the validation cases: 7 of 80, each left out in turn (3.6% to 17.2%, 95% interval)"
    )
    assert "0 of 19, each left out in turn (0.0% to 17.6%" in learnt(np.arange(19)).describe()


@settings(max_examples=30)
@given(st.integers(19, 60), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 2**31))
def test_exchangeable_queries_are_refused_at_most_as_often_as_wanted(n: int, wanted: float, seed: int) -> None:
    """Over all choices of the query among n + 1 cases, with ties, with looks or without, the share is never above."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.gamma(2, size=(n + 1, 2)), 1)
    values[:, 1] += values[:, 0] if rng.random() < 0.8 else np.nan
    p = [
        Likeness.learn(np.delete(values, query, axis=0), wanted).p_values(values[[query]])[0] for query in range(n + 1)
    ]
    assert np.mean(np.array(p) <= wanted) <= wanted


def test_the_test_survives_json() -> None:
    likeness = learnt(np.arange(50.0), np.arange(50.0) ** 2)
    assert checked(asdict(likeness), Likeness, "x", SearchError) == likeness
    assert likeness.is_sound() and not replace(likeness, refused=51).is_sound()
    assert not replace(likeness, look=likeness.look[::-1]).is_sound() and not replace(likeness, n_cases=49).is_sound()
    with pytest.raises(SearchError, match="wanted share of false alarms must be between 0 and 1, got 1"):
        learnt([1.0], wanted=1.0)


def test_looks_are_compared_as_a_slow_oracle_does() -> None:
    rng = np.random.default_rng(0)
    looks, cases = rng.normal(size=(30, 4)).astype(np.float32), np.arange(30) // 2
    looks[5, 1] = np.nan
    space = LookSpace.of(looks, cases)
    assert space is not None and len(space.points) == 29
    np.testing.assert_allclose(np.cov(space.points.T), np.eye(4), atol=0.15)  # but for the shrinkage
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    placed = (queries - space.centre) @ space.factor
    kept = space.points[space.cases != 4]
    slow = [min(float(np.linalg.norm(point - query)) for point in kept) for query in placed]
    assert space.distance(queries, [4]) == pytest.approx(max(slow))
    assert space.distance(queries[:1], [4]) == pytest.approx(slow[0])
    assert space.distance(looks[[8]]) == pytest.approx(0, abs=1e-6) and space.distance(looks[[8]], [4]) > 0.1
    assert np.isnan(space.distance(looks[[5]])) and np.isnan(space.distance(None))
    assert np.isnan(space.distance(queries, range(15)))
    assert LookSpace.of(None, cases) is None and LookSpace.of(looks[5:6], cases[:1]) is None


def test_equal_looks_have_no_distance() -> None:
    space = LookSpace.of(np.ones((5, 3), dtype=np.float32), np.arange(5))
    assert space is not None and space.distance(np.ones((1, 3), dtype=np.float32)) == 0


def test_looks_of_added_images() -> None:
    known, new = np.zeros((2, 3), dtype=np.float32), np.ones((1, 3), dtype=np.float32)
    assert joined_looks(None, new, 1) is None
    np.testing.assert_array_equal(joined_looks(known, new, 1), [[0] * 3, [0] * 3, [1] * 3])
    joined = joined_looks(known, None, 2)
    assert joined is not None and np.isnan(joined[2:]).all() and joined.shape == (4, 3)
    with pytest.raises(SearchError, match="looks must have length 3 as those of the index, got 2"):
        joined_looks(known, new[:, :2], 1)


def test_distances() -> None:
    np.testing.assert_allclose(distances_of(np.array([0.75, np.nan]), [2.0, 3.0]), [[0.25, 2], [np.nan, 3]])
    assert np.isnan(distances_of(np.array([0.75]))[0, 1])
