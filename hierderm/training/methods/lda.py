"""Fisher's linear discriminants of the conditions (scikit-learn), without the tree: a baseline on frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hierderm.config.methods import Lda
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, fitted, linear_model, standardiser
from hierderm.types import Floats, IntArray


def fit(settings: Lda, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The features and the shrinkage with the best validation score; the embedding is the projection."""
    data = FrozenData.load(settings, backbone, table, store)
    n_fine = table.taxonomy.size(-1)
    tried = (
        ({"features": kind, "shrinkage": shrinkage}, found)
        for kind, width in data.widths.items()
        for shrinkage, found in analyses(settings, data.stacked(width), data.fine, n_fine)
    )
    return fitted(data, tried, settings.monitor)


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
    scaler = standardiser(features, settings.components)
    standard = scaler.transform(features)
    for shrinkage in settings.shrinkages:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(standard, fine)
        projection = model.scalings_[:, : len(model.classes_) - 1].T
        yield shrinkage, linear_model(projection, np.zeros(len(projection)), model, scaler, n_fine)
