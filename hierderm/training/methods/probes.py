"""Baselines on frozen features, learnt from the training split alone: a linear probe and LDA (scikit-learn)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.embeddings import unit_length
from hierderm.errors import ConfigError
from hierderm.types import Floats, IntArray, Vectors

PENALTIES = (0.001, 0.01, 0.1, 1.0)  # inverse strength of the probe's L2 penalty
SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
COMPONENTS = 2048  # what a fit with the square of the features in memory should have at most


@dataclass(frozen=True)
class Probe:
    """A fitted baseline on the first `width` features, standardised by `scaler`."""

    name: str
    setting: float
    width: int
    n_fine: int
    scaler: Pipeline
    model: LogisticRegression | LinearDiscriminantAnalysis

    def embed(self, features: Floats) -> Vectors:
        """Unit-length embeddings, one a row: centred logits of the linear probe, the projection of LDA."""
        standard = self.scaler.transform(features[:, : self.width])
        if self.name == "lda":
            return unit_length(self.model.transform(standard))
        logits = self.model.decision_function(standard)
        logits = np.stack([-logits, logits], axis=1) if logits.ndim == 1 else logits  # two classes: one column
        return unit_length(logits - logits.mean(axis=1, keepdims=True))

    def probabilities(self, features: Floats) -> Vectors:
        """Of all conditions, shape (n_images, n_fine); 0 of those never seen in training."""
        found = self.model.predict_proba(self.scaler.transform(features[:, : self.width]))
        result = np.zeros((len(found), self.n_fine), dtype=np.float32)
        result[:, self.model.classes_] = found
        return result


def fit_probe(
    method: str,
    features: Floats,
    fine: IntArray,
    n_fine: int,
    score: Callable[[Probe], float],
    widths: Iterable[int] = (),
) -> Probe:
    """The 'linear_probe' or 'lda' whose strength of regularisation has the best `score` (on validation).

    `features`: of the training images, shape (n_images, dim); `fine`: their conditions, shape (n_images,). `widths`:
    numbers of first features to try; by default all alone.
    """
    if len(np.unique(fine)) < 2:
        raise ConfigError(f"{method} needs at least two conditions in the training split, got one.")
    widths = list(widths) or [features.shape[1]]
    return max((probe for width in widths for probe in _probes(method, features[:, :width], fine, n_fine)), key=score)


def _probes(method: str, features: Floats, fine: IntArray, n_fine: int) -> Iterator[Probe]:
    """Multinomial logistic regression, or Fisher's discriminants of the conditions, shrunk, as these have few images.

    Conditions with a single image have no spread within: LDA leaves them out, unless all are such.
    """
    several = np.bincount(fine)[fine] > 1
    if method == "lda" and len(np.unique(fine[several])) > 1:
        features, fine = features[several], fine[several]
    scaler = _scaler(features)
    standard = scaler.transform(features)
    for setting in SHRINKAGES if method == "lda" else PENALTIES:
        model = (
            LinearDiscriminantAnalysis(solver="eigen", shrinkage=setting)
            if method == "lda"
            else LogisticRegression(C=setting, max_iter=1000)
        )
        yield Probe(method, setting, features.shape[1], n_fine, scaler, model.fit(standard, fine))


def _scaler(features: Floats) -> Pipeline:
    """Features of equal spread; of more than COMPONENTS, their principal components."""
    steps: list[object] = [StandardScaler()]
    if features.shape[1] > COMPONENTS:
        steps.append(PCA(min(COMPONENTS, len(features) - 1), svd_solver="randomized", random_state=0))
    return make_pipeline(*steps).fit(features)
