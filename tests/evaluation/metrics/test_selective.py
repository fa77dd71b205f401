from __future__ import annotations

import numpy as np

from hierderm.evaluation.metrics.selective import controlled_threshold


def test_answers_above_the_threshold_keep_to_the_rate() -> None:
    """Right with the probability that the confidence states: 0.8 holds from about 0.6 upwards (mean 0.8)."""
    broken = found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(size=400)
        threshold = controlled_threshold(confidence, rng.uniform(size=400) < confidence, 0.8)
        if threshold is not None:
            found += 1
            broken += (1 + threshold) / 2 < 0.8
    assert found > 150 and broken <= 0.1 * 200 + 3 * np.sqrt(200 * 0.09)


def test_no_threshold_where_nothing_is_sure_or_too_little_is_known() -> None:
    rng = np.random.default_rng(0)
    assert controlled_threshold(rng.uniform(size=300), rng.uniform(size=300) < 0.5, 0.8) is None
    assert controlled_threshold(np.ones(5), np.ones(5, dtype=bool), 0.8) is None
