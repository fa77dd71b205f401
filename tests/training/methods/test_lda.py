from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.config.methods import Lda
from hierderm.embeddings import unit_length
from hierderm.errors import ConfigError
from hierderm.training.methods.lda import analyses
from tests.training.methods.separable import FEATURES, FINE, network_outputs, probabilities

SEVERAL = FINE != 3  # condition 3 has a single image


def oracle(shrinkage: float) -> LinearDiscriminantAnalysis:
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage)
    return make_pipeline(StandardScaler(), model).fit(FEATURES[SEVERAL], FINE[SEVERAL])


@pytest.mark.parametrize("dim", [6, 9])
def test_the_network_embeds_as_the_analysis(dim: int) -> None:
    """The oracle: scikit-learn's pipeline; features beyond those that were learnt from have no influence."""
    ((shrinkage, found),) = analyses(Lda(shrinkages=(0.3,)), FEATURES, FINE, 5)
    expected = unit_length(oracle(0.3).transform(FEATURES))
    np.testing.assert_allclose(found.embed(FEATURES), expected, atol=1e-5)
    embedded, class_probabilities = network_outputs(found, dim=dim)
    np.testing.assert_allclose(embedded, expected, atol=1e-5)
    np.testing.assert_allclose(class_probabilities[:, :2], oracle(0.3).predict_proba(FEATURES), atol=1e-5)
    assert shrinkage == 0.3 and (class_probabilities[:, 2:] == 0).all()


def test_several_conditions() -> None:
    rng = np.random.default_rng(1)
    fine = np.arange(90) % 5
    features = rng.normal(size=(5, 6))[fine] + 0.5 * rng.normal(size=(90, 6))
    ((_, found),) = analyses(Lda(shrinkages=(0.1,)), features, fine, 5)
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    expected = make_pipeline(StandardScaler(), model).fit(features, fine)
    embedded, class_probabilities = network_outputs(found, features)
    similarity = (own := unit_length(expected.transform(features))) @ own.T  # an axis may point either way
    np.testing.assert_allclose(embedded @ embedded.T, similarity, atol=1e-5)
    np.testing.assert_allclose(class_probabilities, expected.predict_proba(features), atol=1e-5)


def test_conditions_with_a_single_image_are_left_out() -> None:
    ((_, found),) = analyses(Lda(shrinkages=(0.3,)), FEATURES, FINE, 5)
    assert np.isneginf(found.condition_bias[3])
    with pytest.raises(ConfigError, match="at least two conditions with several training images each"):
        list(analyses(Lda(), FEATURES[20:], FINE[20:], 5))


def test_fewer_images_than_features_lose_nothing() -> None:
    """The oracle is scikit-learn on all features; a shrunk covariance of 24 images in 40 dimensions has its inverse."""
    rng = np.random.default_rng(1)
    fine = np.arange(24) % 3
    features = 2 * rng.normal(size=(3, 40))[fine] + rng.normal(size=(24, 40))
    ((_, found),) = analyses(Lda(shrinkages=(0.3,)), features.astype(np.float32), fine, 3)
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3)
    expected = make_pipeline(StandardScaler(), model).fit(features, fine)
    others = rng.normal(size=(9, 40))
    similarity = (own := unit_length(expected.transform(others))) @ own.T
    np.testing.assert_allclose(found.embed(others) @ found.embed(others).T, similarity, atol=1e-5)
    np.testing.assert_allclose(probabilities(found, others), expected.predict_proba(others), atol=1e-5)


def test_very_many_features_are_reduced_first() -> None:
    wide = np.hstack([FEATURES, np.random.default_rng(0).normal(0, 0.1, (36, 100))])
    ((_, found),) = analyses(Lda(shrinkages=(0.9,), components=20), wide, FINE, 5)
    assert found.weight.shape == (1, 106)
    assert (probabilities(found, wide).argmax(axis=1) == FINE)[:35].mean() > 0.9
