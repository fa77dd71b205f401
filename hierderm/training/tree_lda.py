"""Discriminant analysis on a tree: an embedding of frozen features in closed form, in a second.

Fisher's discriminants ask for directions in which the means of classes lie far apart beside the spread within classes
(Fisher 1936; Rao 1948). In a tree the spread of the means has a part for each level: of the categories about the grand
mean, of the conditions about their category's. All parts alike is the flat analysis of the conditions; the first part
alone is that of the categories; `decay` lets each level count less than the one above. The mean of a condition with few
pictures is mostly luck, so it is drawn towards its parent's as if it had `strength` more pictures there (empirical
Bayes: Efron and Morris 1973). Directions are scaled by the square root of their discriminant ratio, so that distances
keep to what tells classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from hierderm.taxonomy import IntArray, Taxonomy

FloatArray = npt.NDArray[np.float64]
SMALLEST = 1e-8  # of a discriminant ratio, beside the largest
SCALES = tuple(float(s) for s in np.geomspace(1, 128, 29))


@dataclass(frozen=True)
class TreeDiscriminants:
    """An embedding x -> weight x + bias, brought to unit length, and a cosine classifier of the conditions on it.

    `weight`: shape (dim, n_features); `bias`: shape (dim,); `directions`: of the conditions, unit length (0 where
    nothing is known of a condition's category), shape (n_fine, dim).
    """

    weight: FloatArray
    bias: FloatArray
    directions: FloatArray

    def embed(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Unit-length embeddings, shape (n_images, dim)."""
        projected = features @ self.weight.T + self.bias
        return _unit(projected)


def fit_tree_lda(
    features: npt.NDArray[np.floating],
    fine: IntArray,
    taxonomy: Taxonomy,
    *,
    shrinkage: float,
    decay: float,
    strength: float,
) -> TreeDiscriminants:
    """Fit on training images: `features` of shape (n_images, n_features), `fine` their conditions, shape (n_images,).

    `shrinkage`: of the covariance within conditions towards a sphere, in [0, 1]; `decay`: weight of each level beside
    the one above, >= 0: 1 is flat, 0 the top level alone; `strength`: pictures that a node's parent counts for, >= 0.
    """
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
    standard = (features - centre) / spread
    means, between = _means_and_scatter(standard, fine, taxonomy, decay, strength)
    deviations = standard - _raw_means(standard, fine)[fine]
    within = deviations.T @ deviations / len(standard)
    n_features = within.shape[0]
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / n_features * np.eye(n_features)
    within += 1e-9 * np.trace(within) / n_features * np.eye(n_features)  # features may depend on each other
    ratios, vectors = eigh(between, within)
    kept = ratios > SMALLEST * ratios[-1]
    projection = (vectors[:, kept] * np.sqrt(ratios[kept]))[:, ::-1].T  # (dim, n_features), largest ratio first
    weight = projection / spread
    return TreeDiscriminants(weight, -weight @ centre, _unit(means @ projection.T))


def _raw_means(standard: FloatArray, labels: IntArray) -> FloatArray:
    """Mean of each label's images, 0 for labels without any, shape (n_labels, n_features)."""
    counts = np.bincount(labels)
    sums = np.zeros((len(counts), standard.shape[1]))
    np.add.at(sums, labels, standard)
    return np.asarray(sums / np.maximum(counts, 1)[:, None])


def _means_and_scatter(
    standard: FloatArray, fine: IntArray, taxonomy: Taxonomy, decay: float, strength: float
) -> tuple[FloatArray, FloatArray]:
    """Means of the conditions, drawn to their parents level by level, and the weighted scatter of all levels' means."""
    above = np.zeros((1, standard.shape[1]))  # the grand mean: features are centred
    between = np.zeros((standard.shape[1],) * 2)
    for level in range(taxonomy.n_levels):
        labels = taxonomy.to_level(fine, level)
        parents = np.array([max(node.parent, 0) for node in taxonomy.levels[level]])
        counts = np.bincount(labels, minlength=taxonomy.size(level)).astype(np.float64)[:, None]
        raw = np.zeros((taxonomy.size(level), standard.shape[1]))
        found = _raw_means(standard, labels)
        raw[: len(found)] = found
        drawn = strength if level else 0.0  # the grand mean is no prior for a category
        total = counts + drawn
        means = np.divide(counts * raw + drawn * above[parents], total, out=above[parents].copy(), where=total > 0)
        difference = (means - above[parents]) * np.sqrt(counts / len(standard))
        between += decay**level * (difference.T @ difference)
        above = means
    return above, between


def best_scale(embeddings: FloatArray, fine: IntArray, directions: FloatArray) -> float:
    """The scale of the cosine classifier under which the labels of validation images are most likely."""
    cosine = embeddings @ directions.T

    def likelihood(scale: float) -> float:
        logits = scale * cosine
        top = logits.max(axis=1, keepdims=True)
        normaliser = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
        return float((logits[np.arange(len(fine)), fine] - normaliser).mean())

    return max(SCALES, key=likelihood)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))
