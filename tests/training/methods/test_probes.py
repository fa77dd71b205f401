from __future__ import annotations

import numpy as np
import pytest

from hierderm.errors import ConfigError
from hierderm.training.methods.probes import Probe, fit_probe

RNG = np.random.default_rng(0)
FINE = np.repeat([0, 1, 3], [20, 15, 1])
FEATURES = np.eye(4)[FINE] @ RNG.normal(size=(4, 6)) + RNG.normal(0, 0.1, (36, 6))


@pytest.mark.parametrize("method", ["linear_probe", "lda"])
def test_a_probe_separates_what_is_separable(method: str) -> None:
    probe = fit_probe(method, FEATURES, FINE, 5, lambda probe: probe.setting)
    probabilities = probe.probabilities(FEATURES)
    assert probabilities.shape == (36, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities[:, [2, 4]] == 0).all()  # never seen in training
    assert (probabilities.argmax(axis=1) == FINE)[:35].mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(probe.embed(FEATURES), axis=1), 1, rtol=1e-5)


def test_the_score_chooses_the_setting() -> None:
    wanted = {"linear_probe": 0.1, "lda": 0.6}

    def near(method: str) -> Probe:
        return fit_probe(method, FEATURES, FINE, 5, lambda probe: -abs(probe.setting - wanted[method]))

    assert [near(method).setting for method in wanted] == list(wanted.values())


def test_two_conditions_give_two_logits() -> None:
    probe = fit_probe("linear_probe", FEATURES[:35], FINE[:35], 2, lambda probe: 0.0)
    assert probe.embed(FEATURES).shape == (36, 2)


def test_one_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs at least two conditions"):
        fit_probe("lda", FEATURES[:20], FINE[:20], 5, lambda probe: 0.0)


@pytest.mark.parametrize("method", ["linear_probe", "lda"])
def test_very_many_features_are_reduced_first(method: str) -> None:
    wide = np.hstack([FEATURES, RNG.normal(0, 0.1, (36, 2100))])
    probe = fit_probe(method, wide, FINE, 5, lambda probe: probe.setting)
    assert probe.embed(wide).shape[1] < 36
    assert (probe.probabilities(wide).argmax(axis=1) == FINE)[:35].mean() > 0.9
