"""Baselines on frozen features, learnt from the training split alone: a linear probe and LDA (scikit-learn)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm.embeddings import unit_length
from hierderm.errors import ConfigError
from hierderm.taxonomy import IntArray

FloatArray = npt.NDArray[np.floating]
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # inverse strength of the probe's L2 penalty
SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
COMPONENTS = 2048  # what a fit with the square of the features in memory should have at most


@dataclass(frozen=True)
class Probe:
    """A fitted baseline on the first `width` features.

    `embed` makes unit-length embeddings, `probabilities` those of all conditions.
    """

    name: str
    setting: float
    width: int
    embed: Callable[[FloatArray], npt.NDArray[np.float32]]
    probabilities: Callable[[FloatArray], npt.NDArray[np.float32]]


def fit_probe(
    method: str,
    features: FloatArray,
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
    make = {"linear_probe": _linear_probes, "lda": _ldas}[method]
    widths = list(widths) or [features.shape[1]]
    return max((probe for width in widths for probe in make(features[:, :width], fine, n_fine)), key=score)


def _linear_probes(features: FloatArray, fine: IntArray, n_fine: int) -> Iterator[Probe]:
    """Multinomial logistic regression on standardised features; its embedding is the centred logits."""
    width, scaler = features.shape[1], _scaler(features)
    standard = scaler.transform(features)

    def probe(penalty: float) -> Probe:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(standard, fine)

        def embed(new: FloatArray) -> npt.NDArray[np.float32]:
            logits = model.decision_function(scaler.transform(new[:, :width]))
            logits = np.stack([-logits, logits], axis=1) if logits.ndim == 1 else logits  # two classes: one column
            return unit_length(logits - logits.mean(axis=1, keepdims=True))

        def probabilities(new: FloatArray) -> npt.NDArray[np.float32]:
            return _all_conditions(model.predict_proba(scaler.transform(new[:, :width])), model.classes_, n_fine)

        return Probe("linear_probe", penalty, width, embed, probabilities)

    yield from map(probe, PENALTIES)


def _ldas(features: FloatArray, fine: IntArray, n_fine: int) -> Iterator[Probe]:
    """Fisher's discriminants of the conditions, shrunk, as conditions have few images; the projection embeds.

    Conditions with a single image have no spread within: they are left out, unless all are such.
    """
    several = np.bincount(fine)[fine] > 1
    if len(np.unique(fine[several])) > 1:
        features, fine = features[several], fine[several]
    width, scaler = features.shape[1], _scaler(features)
    standard = scaler.transform(features)

    def probe(shrinkage: float) -> Probe:
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(standard, fine)

        def embed(new: FloatArray) -> npt.NDArray[np.float32]:
            return unit_length(model.transform(scaler.transform(new[:, :width])))

        def probabilities(new: FloatArray) -> npt.NDArray[np.float32]:
            return _all_conditions(model.predict_proba(scaler.transform(new[:, :width])), model.classes_, n_fine)

        return Probe("lda", shrinkage, width, embed, probabilities)

    yield from map(probe, SHRINKAGES)


def _scaler(features: FloatArray) -> Pipeline:
    """Features of equal spread; of more than COMPONENTS, their principal components."""
    steps: list[object] = [StandardScaler()]
    if features.shape[1] > COMPONENTS:
        steps.append(PCA(min(COMPONENTS, len(features) - 1), svd_solver="randomized", random_state=0))
    return make_pipeline(*steps).fit(features)


def _all_conditions(probabilities: FloatArray, classes: IntArray, n_fine: int) -> npt.NDArray[np.float32]:
    result = np.zeros((len(probabilities), n_fine), dtype=np.float32)
    result[:, classes] = probabilities
    return result
