from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.config.methods import LinearProbe
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.probing import fit_linear_probe
from hierderm.training.frozen import FrozenData
from hierderm.training.methods.linear_probe import as_discriminants, probes
from tests.training.methods.separable import FEATURES, FINE, FakeBackbone, network_outputs, probabilities


def test_the_network_embeds_as_the_probe() -> None:
    probe = fit_linear_probe(FEATURES, FINE, penalties=(0.1,), score=lambda probe: 0.0)
    found = as_discriminants(probe, 5)
    expected = unit_length(probe.logits(FEATURES))
    np.testing.assert_allclose(found.embed(FEATURES), expected, atol=1e-5)
    embedded, class_probabilities = network_outputs(found)
    np.testing.assert_allclose(embedded, expected, atol=1e-5)
    np.testing.assert_allclose(class_probabilities[:, [0, 1, 3]], probe.predict_proba(FEATURES), atol=1e-5)
    assert (class_probabilities[:, [2, 4]] == 0).all()  # never seen in training


def test_it_is_the_logistic_regression_of_scikit_learn() -> None:
    found = as_discriminants(fit_linear_probe(FEATURES, FINE, penalties=(0.1,), score=lambda probe: 0.0), 5)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, tol=1e-8)).fit(FEATURES, FINE)
    np.testing.assert_allclose(probabilities(found)[:, [0, 1, 3]], oracle.predict_proba(FEATURES), atol=2e-3)


def test_two_conditions_give_two_logits() -> None:
    found = as_discriminants(fit_linear_probe(FEATURES[:35], FINE[:35], score=lambda probe: 0.0), 2)
    embedded, class_probabilities = network_outputs(as_discriminants(fit_linear_probe(FEATURES[:35], FINE[:35]), 5))
    assert found.embed(FEATURES).shape == embedded.shape == (36, 2)
    np.testing.assert_allclose(embedded[:, 0], -embedded[:, 1], atol=1e-6)  # centred
    np.testing.assert_allclose(class_probabilities.sum(axis=1), 1, atol=1e-6)


def test_penalties_are_tried_until_the_score_falls(toy: CaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(9, 12))
    train, validation = toy.part("train"), toy.part("validation")
    features = (centres[part.fine] + rng.normal(size=(len(part), 12)) for part in (train, validation))
    views, validation_features = ([array.astype(np.float32)] for array in features)
    backbone = FakeBackbone(12)
    data = FrozenData(backbone, train, validation, views, validation_features[0], {"layers": 12})  # type: ignore[arg-type]
    wanted = iter([0.1, 0.5, 0.3, 0.9])
    monkeypatch.setattr(FrozenData, "scores", lambda *_: {"mean_retrieval": next(wanted)})
    tried = probes(LinearProbe(penalties=(1.0, 0.001, 0.1, 0.01)), data, "layers")
    rows = [row for row, _ in tried]
    assert [(row["features"], row["penalty"]) for row in rows] == [("layers", p) for p in (0.001, 0.01, 0.1)]
    assert [row["mean_retrieval"] for row in rows] == [0.1, 0.5, 0.3]
