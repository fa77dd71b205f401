"""Fisher's linear discriminants of the conditions, as in scikit-learn, without the tree: a baseline on features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.sparse import csr_array
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.config.methods import Lda
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.model.heads import Discriminants
from hierderm.progress import track
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, Linear, choose, discriminants
from hierderm.types import FloatArray, Floats, IntArray


def fit(settings: Lda, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The features and the shrinkage with the best validation score; the embedding is the projection."""
    data = FrozenData.load(settings, backbone, table, store)
    n_fine = table.taxonomy.size(-1)
    tried = (
        ({"features": kind, "shrinkage": shrinkage, **data.scores(found)}, found)
        for kind, width in data.widths.items()
        for shrinkage, found in analyses(settings, data.stacked(width), data.fine, n_fine)
    )
    n_settings = len(data.widths) * len(settings.shrinkages)
    return choose(data, track(tried, "Fitting", n_settings, unit="settings"), settings.monitor)


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
    classes, number = np.unique(fine[several], return_inverse=True)
    learnt = features[several]
    if len(learnt) <= learnt.shape[1]:
        learnt = learnt.astype(np.float64)  # few enough
    scaler = _standardiser(learnt, settings.components)
    scatter = _Scatter.of(scaler.transform(learnt), number, min(learnt.shape[1], settings.components))
    for shrinkage in settings.shrinkages:
        projection, logits = scatter.analysis(shrinkage)
        embedding, own = _on_raw_features(projection, scaler), _on_raw_features(logits, scaler)
        yield shrinkage, discriminants(embedding, own, classes, n_fine)


class _Scatter(NamedTuple):
    """Means and covariances that all shrinkages share: LinearDiscriminantAnalysis would compute them for each.

    `means`: of the classes, shape (n_classes, n_axes); `priors`: their shares, (n_classes,); `within`, `between`:
    covariances within the classes and of their means, (n_axes, n_axes); `n_features`: of the sphere they are shrunk
    towards, which has as many axes where the images vary along fewer.
    """

    means: FloatArray
    priors: FloatArray
    within: FloatArray
    between: FloatArray
    n_features: int

    @classmethod
    def of(cls, standard: Floats, number: IntArray, n_features: int) -> _Scatter:
        """Of features, shape (n_rows, n_axes), whose classes are numbered from 0, shape (n_rows,)."""
        counts = np.bincount(number)
        members = csr_array((np.ones(len(number)), (number, np.arange(len(number)))))
        means, priors = np.asarray(members @ standard.astype(np.float64)) / counts[:, None], counts / len(number)
        apart = means - priors @ means
        deviations = standard - means[number]
        within = deviations.T @ deviations / len(number)
        return cls(means, priors, within, (apart * priors[:, None]).T @ apart, n_features)

    def analysis(self, shrinkage: float) -> tuple[Linear, Linear]:
        """The projection on the discriminants and the logits of the classes."""
        within, between = (_shrunk(one, shrinkage, self.n_features) for one in (self.within, self.between))
        n_axes = min(len(self.means) - 1, len(within))
        _, axes = eigh(between, within, subset_by_index=(len(within) - n_axes, len(within) - 1))
        weight = cho_solve(cho_factor(within), self.means.T).T
        bias = np.log(self.priors) - (self.means * weight).sum(axis=1) / 2
        return Linear(axes[:, ::-1].T, np.zeros(n_axes)), Linear(weight, bias)


def _shrunk(covariance: FloatArray, shrinkage: float, n_features: int) -> FloatArray:
    """Towards a sphere in `n_features` of the same total variance."""
    sphere = np.trace(covariance) / n_features * np.eye(len(covariance))
    return np.asarray((1 - shrinkage) * covariance + shrinkage * sphere)


def _standardiser(features: Floats, components: int) -> Pipeline:
    """Features of equal spread; of more than `components`, or than there are rows, their principal components."""
    steps: list[object] = [StandardScaler()]
    if features.shape[1] > components:
        steps.append(PCA(min(components, len(features) - 1), svd_solver="randomized", random_state=0))
    elif len(features) <= features.shape[1]:  # no loss: means differ, and images vary, only along their own axes
        steps.append(PCA(len(features) - 1, svd_solver="full"))
    return make_pipeline(*steps).fit(features)


def _on_raw_features(function: Linear, scaler: Pipeline) -> Linear:
    if len(scaler) > 1:
        axes = Linear(function.weight @ scaler[1].components_, function.bias)
        function = axes.on_raw_features(scaler[1].mean_, 1.0)
    return function.on_raw_features(scaler[0].mean_, scaler[0].scale_)
