"""Fisher's linear discriminants of the conditions (scikit-learn), without the tree: a baseline on frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.config.methods import Lda
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, Linear, choose, discriminants
from hierderm.types import Floats, IntArray


def fit(settings: Lda, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The features and the shrinkage with the best validation score; the embedding is the projection."""
    data = FrozenData.load(settings, backbone, table, store)
    n_fine = table.taxonomy.size(-1)
    tried = (
        ({"features": kind, "shrinkage": shrinkage, **data.scores(found)}, found)
        for kind, width in data.widths.items()
        for shrinkage, found in analyses(settings, data.stacked(width), data.fine, n_fine)
    )
    return choose(data, tried, settings.monitor)


def analyses(settings: Lda, features: Floats, fine: IntArray, n_fine: int) -> Iterator[tuple[float, Discriminants]]:
    """Each shrinkage with its analysis of `features`, shape (n_rows, n_features), of conditions `fine`, (n_rows,).

    Conditions with a single row have no covariance and are left out.
    """
    several = np.bincount(fine)[fine] > 1
    if len(np.unique(fine[several])) < 2:
        raise ConfigError(
            "lda must have at least two conditions with several training images each. Set training.views above 0: "
            "augmented copies of an image count."
        )
    features, fine = features[several], fine[several]
    scaler = _standardiser(features, settings.components)
    standard = scaler.transform(features)
    for shrinkage in settings.shrinkages:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(standard, fine)
        projection = model.scalings_[:, : len(model.classes_) - 1].T
        embedding = _on_raw_features(Linear(projection, np.zeros(len(projection))), scaler)
        yield shrinkage, discriminants(embedding, _on_raw_features(_logits(model), scaler), model.classes_, n_fine)


def _standardiser(features: Floats, components: int) -> Pipeline:
    """Features of equal spread; of more than `components`, their principal components."""
    steps: list[object] = [StandardScaler()]
    if features.shape[1] > components:
        steps.append(PCA(min(components, len(features) - 1), svd_solver="randomized", random_state=0))
    return make_pipeline(*steps).fit(features)


def _on_raw_features(function: Linear, scaler: Pipeline) -> Linear:
    if len(scaler) > 1:
        axes = Linear(function.weight @ scaler[1].components_, function.bias)
        function = axes.on_raw_features(scaler[1].mean_, 1.0)
    return function.on_raw_features(scaler[0].mean_, scaler[0].scale_)


def _logits(model: LinearDiscriminantAnalysis) -> Linear:
    """The logits of the classes; scikit-learn keeps one row of two, their difference."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    return Linear(weight, bias)
