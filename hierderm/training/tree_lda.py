"""Discriminant analysis on a tree: an embedding of frozen features in closed form, in seconds.

Fisher's discriminants ask for directions in which the means of classes lie far apart beside the spread within classes
(Fisher 1936; Rao 1948). In a tree the spread of the means has a part for each level: of the categories about the grand
mean, of the conditions about their category's. All parts alike is the flat analysis of the conditions; the first part
alone is that of the categories; `decay` lets each level count less than the one above. The mean of a condition with few
pictures is mostly luck, so it is drawn towards its parent's as if it had `strength` more pictures there (empirical
Bayes: Efron and Morris 1973). Directions are scaled by the square root of their discriminant ratio, so that distances
keep to what tells classes apart.

The same means and covariance give each node of the tree its probability (normal classes that share a covariance: Rao
1948), that of a category being the sum over its conditions. The roots of these beliefs stand beside the discriminants
in the embedding, so that pictures are near, too, where the same nodes are likely (Bhattacharyya 1943).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular, svd
from scipy.special import log_softmax, softmax
from sklearn.decomposition import PCA

from hierderm.taxonomy import IntArray, Taxonomy

FloatArray = npt.NDArray[np.float64]
SMALLEST = 1e-8  # of a discriminant ratio, beside the largest
SCALES = tuple(float(s) for s in np.geomspace(0.05, 5, 29))
FEWEST = 0.1  # training pictures that a condition without any counts for, when its chance is asked for


@dataclass(frozen=True)
class TreeDiscriminants:
    """An embedding of features, shape (n_images, n_features), and the logits of the conditions.

    `weight`: shape (dim, n_features), and `bias`: (dim,), of the discriminants; `condition_weight`: (n_fine,
    n_features), and `condition_bias`: (n_fine,), of the logits. `membership`: of conditions in the nodes
    of `n_believed` levels, shape (n_fine, n_nodes), 0 or 1. `belief`: share of the beliefs in the cosine, in [0, 1).
    """

    weight: FloatArray
    bias: FloatArray
    condition_weight: FloatArray
    condition_bias: FloatArray
    membership: FloatArray
    n_believed: int
    belief: float = 0.0

    def logits(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Log-probabilities of the conditions but for a constant, shape (n_images, n_fine)."""
        return np.asarray(features @ self.condition_weight.T + self.condition_bias)

    def embed(self, features: npt.NDArray[np.floating]) -> FloatArray:
        """Unit-length embeddings, shape (n_images, dim + n_nodes): see `hierderm.model.heads.DiscriminantNeck`."""
        discriminants = np.sqrt(1 - self.belief) * _unit(features @ self.weight.T + self.bias)
        beliefs = np.sqrt(self.belief / self.n_believed * (softmax(self.logits(features), axis=1) @ self.membership))
        return np.concatenate([discriminants, beliefs], axis=1)


class TreeLda:
    """What all settings have in common, gathered once from the training images; `fit` is then a matter of a moment.

    `features`: shape (n_views * n_images, n_features), all images of one view after the other; `fine`: their
    conditions, shape (n_images,). Views are augmented copies, so that what augmentation changes counts as spread
    within conditions. More than `components` features are first reduced to as many principal components.
    `belief_levels`: whose nodes' probabilities the embedding may hold, by default all.
    """

    def __init__(
        self,
        features: npt.NDArray[np.floating],
        fine: IntArray,
        taxonomy: Taxonomy,
        *,
        n_views: int = 1,
        components: int = 2048,
        belief_levels: Sequence[str] = (),
    ) -> None:
        self.taxonomy, self.n_views = taxonomy, n_views
        self.believed = [taxonomy.level_number(name) for name in belief_levels] or list(range(taxonomy.n_levels))
        self.fine = np.tile(fine, n_views)
        self.centre, self.spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        self.spread = self.spread + 1e-12
        standard = ((features - self.centre) / self.spread).astype(features.dtype)
        self.basis: FloatArray | None = None
        if features.shape[1] > components:
            n_components = min(components, len(standard) - 1)
            reduced = PCA(n_components, svd_solver="randomized", random_state=0).fit(standard)
            standard, self.basis = reduced.transform(standard), reduced.components_.astype(np.float64)
        standard = standard.astype(np.float64)
        self.raw_means, self.counts = [], list[FloatArray]()
        for level in range(taxonomy.n_levels):
            means, counts = _means(standard, taxonomy.to_level(self.fine, level), taxonomy.size(level))
            self.raw_means.append(means)
            self.counts.append(counts)
        deviations = standard - self.raw_means[-1][self.fine]
        self.within = deviations.T @ deviations / len(standard)
        self._last: tuple[float, FloatArray] | None = None

    def fit(self, *, shrinkage: float, decay: float, strength: float, belief: float = 0.0) -> TreeDiscriminants:
        """The discriminants of one setting.

        `shrinkage`: of the covariance within conditions towards a sphere, in [0, 1]; `decay`: weight of each level
        beside the one above, >= 0: 1 is flat, 0 the top level alone; `strength`: images that a node's parent counts
        for, >= 0; `belief`: share of the beliefs in the cosine, in [0, 1).
        """
        means, root = self._means_and_scatter(decay, strength)
        lower = self._root_of_within(shrinkage)
        # The scatter of the means is root @ root.T and of low rank: its ratios to `within` are the squared singular
        # values of L^-1 root, where L L^T = within, at a small part of the cost of the eigenvectors of both.
        left, values, _ = svd(solve_triangular(lower, root, lower=True), full_matrices=False)
        kept = values**2 > SMALLEST * values[0] ** 2
        vectors = solve_triangular(lower, left[:, kept], lower=True, trans="T")
        projection = (vectors * values[kept]).T  # (dim, n_features), largest ratio first
        whitened = solve_triangular(lower, means.T, lower=True)
        conditions = solve_triangular(lower, whitened, lower=True, trans="T").T
        chances = np.log(np.maximum(self.counts[-1][:, 0] / self.n_views, FEWEST) * self.n_views / len(self.fine))
        weight, condition_weight = self._on_raw_features(projection), self._on_raw_features(conditions)
        return TreeDiscriminants(
            weight,
            -weight @ self.centre,
            condition_weight,
            chances - (whitened**2).sum(axis=0) / 2 - condition_weight @ self.centre,
            np.concatenate([self._membership(level) for level in self.believed], axis=1),
            len(self.believed),
            belief,
        )

    def _root_of_within(self, shrinkage: float) -> FloatArray:
        """L with L L^T the shrunk covariance within conditions; the last one is kept, as settings often share it."""
        if self._last is None or self._last[0] != shrinkage:
            n_features = len(self.within)
            sphere = np.trace(self.within) / n_features
            within = (1 - shrinkage) * self.within
            within[np.diag_indices(n_features)] += (shrinkage + 1e-9) * sphere  # features may depend on each other
            self._last = shrinkage, cholesky(within, lower=True)
        return self._last[1]

    def _on_raw_features(self, weight: FloatArray) -> FloatArray:
        """Weights of standardised features, or of their components, as weights of the features as they came."""
        return np.asarray((weight if self.basis is None else weight @ self.basis) / self.spread)

    def _membership(self, level: int) -> FloatArray:
        return np.eye(self.taxonomy.size(level))[self.taxonomy.ancestors[:, level]]

    def _means_and_scatter(self, decay: float, strength: float) -> tuple[FloatArray, FloatArray]:
        """Means of the conditions, drawn to their parents level by level, and a root of the scatter of all means.

        The root has a column for each node: its mean less its parent's, times the root of its weight.
        """
        above = np.zeros((1, len(self.within)))  # the grand mean: features are centred
        columns = []
        for level, (raw, counts) in enumerate(zip(self.raw_means, self.counts, strict=True)):
            parents = np.array([max(node.parent, 0) for node in self.taxonomy.levels[level]])
            drawn = strength * self.n_views if level else 0.0  # the grand mean is no prior for a category
            total = counts + drawn
            means = np.divide(counts * raw + drawn * above[parents], total, out=above[parents].copy(), where=total > 0)
            columns.append((means - above[parents]) * np.sqrt(decay**level * counts / len(self.fine)))
            above = means
        return above, np.concatenate(columns).T


def _means(standard: FloatArray, labels: IntArray, n_labels: int) -> tuple[FloatArray, FloatArray]:
    """Mean of each label's images, 0 without any, shape (n_labels, n_features), and their counts, (n_labels, 1)."""
    counts = np.bincount(labels, minlength=n_labels).astype(np.float64)[:, None]
    sums = np.zeros((n_labels, standard.shape[1]))
    np.add.at(sums, labels, standard)
    return sums / np.maximum(counts, 1), counts


def best_scale(logits: FloatArray, fine: IntArray) -> float:
    """The factor of the logits under which the labels of validation images are most likely."""

    def likelihood(scale: float) -> float:
        return float(log_softmax(scale * logits, axis=1)[np.arange(len(fine)), fine].mean())

    return max(SCALES, key=likelihood)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))
