from __future__ import annotations

import numpy as np
import pytest

from hierderm.search.why import match

AXES = np.eye(4, dtype=np.float32)


def test_by_hand() -> None:
    """Query of 1 x 3 places, case of 2 x 2, whose mean is 0: one pair is the same, all others are at right angles."""
    query = np.stack([AXES[0], -AXES[0], AXES[1]])[None]
    case = np.stack([AXES[1], -AXES[1], -AXES[1], 0 * AXES[1]]).reshape(2, 2, 4)
    for shared in (0, 0.5 * AXES[3]):  # what all places have in common says nothing
        found = match(query + shared, case + shared)
        np.testing.assert_allclose(found.query, [[0, 0, 1]], atol=1e-6)
        np.testing.assert_allclose(found.case, [[1, 0], [0, 0]], atol=1e-6)
        assert found.pairs[0] == ((0, 2), (0, 0)) and len({place for pair in found.pairs for place in pair}) >= 3
        assert len({query for query, _ in found.pairs}) == len({case for _, case in found.pairs}) == 3


def test_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    there, back = match(one, two), match(two, one)
    np.testing.assert_allclose(there.query, back.case)
    assert there.pairs == tuple((query, case) for case, query in back.pairs)
    assert there.query.max() == pytest.approx(there.case.max())
