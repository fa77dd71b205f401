from __future__ import annotations

import numpy as np
import pytest

from hierderm.search.why import match

Axes = np.eye(4, dtype=np.float32)


def test_by_hand() -> None:
    """Query of 1 x 3 places, case of 2 x 2: two are the same, one is halfway between two axes."""
    half = (Axes[0] + Axes[3]) / np.sqrt(2)
    query = np.stack([Axes[0], Axes[1], half])[None]
    case = np.stack([Axes[2], Axes[1], Axes[3], -Axes[0]]).reshape(2, 2, 4)
    found = match(query, case.astype(np.float32))
    np.testing.assert_allclose(found.query, [[0, 1, 0.5**0.5]], atol=1e-6)
    np.testing.assert_allclose(found.case, [[0, 1], [0.5**0.5, 0]], atol=1e-6)
    # (0, 1) is (0, 1); then (0, 2) is nearest (1, 0); of what is left, (0, 0) to (0, 0) is 0, and to (1, 1) is -1.
    assert found.pairs == (((0, 1), (0, 1)), ((0, 2), (1, 0)), ((0, 0), (0, 0)))


def test_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    there, back = match(one, two), match(two, one)
    np.testing.assert_allclose(there.query, back.case)
    assert there.pairs == tuple((query, case) for case, query in back.pairs)
    assert there.query.max() == pytest.approx(there.case.max())
