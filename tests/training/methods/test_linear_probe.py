from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.config.methods import LinearProbe
from hierderm.embeddings import unit_length
from hierderm.training.methods.linear_probe import probes
from tests.training.methods.separable import FEATURES, FINE, network_outputs, probabilities


def test_the_network_embeds_as_the_probe() -> None:
    """The oracle: scikit-learn's pipeline; the embedding is its centred logits."""
    ((penalty, found),) = probes(LinearProbe(penalties=(0.1,)), FEATURES, FINE, 5)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(FEATURES, FINE)
    logits = oracle.decision_function(FEATURES)
    expected = unit_length(logits - logits.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(found.embed(FEATURES), expected, atol=1e-5)
    embedded, class_probabilities = network_outputs(found)
    np.testing.assert_allclose(embedded, expected, atol=1e-5)
    np.testing.assert_allclose(class_probabilities[:, [0, 1, 3]], oracle.predict_proba(FEATURES), atol=1e-5)
    assert penalty == 0.1 and (class_probabilities[:, [2, 4]] == 0).all()  # never seen in training


def test_each_penalty_is_tried() -> None:
    found = dict(probes(LinearProbe(penalties=(0.001, 1.0)), FEATURES, FINE, 5))
    weak, strong = (probabilities(found[penalty]).max(axis=1).mean() for penalty in (0.001, 1.0))
    assert weak < strong > 0.95


def test_two_conditions_give_two_logits() -> None:
    ((_, found),) = probes(LinearProbe(penalties=(0.1,)), FEATURES[:35], FINE[:35], 2)
    assert found.embed(FEATURES).shape == (36, 2)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(FEATURES[:35], FINE[:35])
    np.testing.assert_allclose(probabilities(found), oracle.predict_proba(FEATURES), atol=1e-5)


def test_very_many_features_are_reduced_first() -> None:
    wide = np.hstack([FEATURES, np.random.default_rng(0).normal(0, 0.1, (36, 100))])
    ((_, found),) = probes(LinearProbe(penalties=(1.0,), components=20), wide, FINE, 5)
    assert found.weight.shape == (3, 106)  # weights of the features themselves
    assert (probabilities(found, wide).argmax(axis=1) == FINE)[:35].mean() > 0.9
