"""Discriminant analysis on a tree: an embedding of frozen features in closed form, in seconds.

Fisher's discriminants are the directions in which class means differ most relative to the covariance within classes
(Fisher 1936; Rao 1948). In a tree the scatter of the means has a part for each node: its mean less its parent's. Equal
weights give the flat analysis of the conditions; the parts of the categories alone give that of the categories; `decay`
lets each level count less than the one above. The mean of a condition with few images is mostly noise, so it is shrunk
towards the parent mean as if the parent had `strength` more images there (empirical Bayes: Efron and Morris 1973).

An image has a coordinate for each node: the projection of its features on the direction that separates the node from
its parent, d_node^T W^-1 x with d_node the difference of the means and W the covariance within conditions. This is the
space of the discriminants with every direction scaled by the root of its discriminant ratio, rotated so that axes are
nodes.

The same means and covariance give each node of the tree its probability (normal classes that share a covariance: Rao
1948), that of a category being the sum over its conditions. The roots of these node probabilities stand beside the
discriminants in the embedding, so that images are near, too, where the same nodes are likely (Bhattacharyya 1943).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

from hierderm.model.heads import Discriminants
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Mask

MIN_IMAGES = 0.1  # training images that a condition without any counts for in its prior probability


class TreeAnalysis:
    """Statistics of the training images that all settings share, computed once; `fit` then takes a moment.

    `features`: shape (n_views * n_images, n_features), all images of one view after the other; `fine`: their
    conditions, shape (n_images,). Views are augmented copies, so what augmentation changes counts as covariance
    within conditions. More than `components` features are first reduced to as many principal components.
    `probability_levels`: levels whose node probabilities enter the embedding, by default all.
    """

    def __init__(
        self,
        features: Floats,
        fine: IntArray,
        taxonomy: Taxonomy,
        *,
        n_views: int = 1,
        components: int = 2048,
        probability_levels: Sequence[str] = (),
    ) -> None:
        self.taxonomy, self.n_views = taxonomy, n_views
        named = taxonomy.level_numbers(probability_levels)
        self.levels = tuple(named or range(taxonomy.n_levels))
        self.fine = np.tile(fine, n_views)
        self.centre, self.spread, standard = _standardised(features)
        self.basis: FloatArray | None = None
        self.n_features = features.shape[1]
        if self.n_features > components:
            self.n_features = min(components, len(standard) - 1)
            reduced = PCA(self.n_features, svd_solver="randomized", random_state=0).fit(standard)
            standard, self.basis = reduced.transform(standard), reduced.components_.astype(np.float64)
        elif len(standard) <= self.n_features:  # no loss: means differ, and images vary, only along their own axes
            axes = PCA(len(standard) - 1, svd_solver="full").fit(standard.astype(np.float64))
            standard, self.basis = axes.transform(standard), axes.components_
        self.standard = standard.astype(np.float64)
        self.moments = _moments(self.standard, self.fine, taxonomy.size(-1))
        self._use(self.moments)

    def leaving_out(self, left_out: Mask) -> TreeAnalysis:
        """The analysis of the other images; `left_out` has shape (n_images,).

        Features stay standardised and reduced as they are: no label is used for that.
        """
        rows = np.tile(left_out, self.n_views)
        without = _moments(self.standard[rows], self.fine[rows], self.taxonomy.size(-1))
        other = copy(self)  # shares the features, so the parts of a cross-validation hold them once
        other._use(Moments(*(whole - part for whole, part in zip(self.moments, without, strict=True))))
        return other

    def _use(self, moments: Moments) -> None:
        """Means, counts and covariance of the images of these moments."""
        self.n_rows = moments.counts.sum()
        self.grand_mean = moments.sums.sum(axis=0) / self.n_rows
        self.raw_means, self.counts = [], list[FloatArray]()
        for level in range(self.taxonomy.n_levels):
            members = self.taxonomy.membership(level).T
            counts, sums = members @ moments.counts, members @ moments.sums
            self.raw_means.append((sums - counts * self.grand_mean) / np.maximum(counts, 1))  # 0 without any
            self.counts.append(counts)
        scatter = (moments.sums / np.maximum(moments.counts, 1)).T @ moments.sums
        self.within = (moments.products - scatter) / self.n_rows
        self._last: tuple[float, list[FloatArray]] | None = None

    def fit(self, *, shrinkage: float, decay: float, strength: float, probability_share: float = 0.0) -> Discriminants:
        """The discriminants of one setting.

        `shrinkage`: of the covariance within conditions towards a sphere, in [0, 1]; `decay`: weight of each level
        relative to the one above, >= 0: 1 is flat, 0 the top level alone; `strength`: images that a node's parent
        counts for, >= 0; `probability_share`: share of the node probabilities in the cosine, in [0, 1).
        """
        means, _ = self._shrunk(self.raw_means, decay, strength)
        solved, directions = self._shrunk(self._solved_means(shrinkage), decay, strength)
        log_prior = np.log(np.maximum(self.counts[-1][:, 0] / self.n_views, MIN_IMAGES) * self.n_views / self.n_rows)
        weight, condition_weight = self._on_raw_features(directions), self._on_raw_features(solved)
        return Discriminants(
            weight,
            -weight @ self.centre - directions @ self.grand_mean,
            condition_weight,
            log_prior - (means * solved).sum(axis=1) / 2 - condition_weight @ self.centre - solved @ self.grand_mean,
            np.concatenate([self.taxonomy.membership(level) for level in self.levels], axis=1),
            self.levels,
            probability_share,
        )

    def _solved_means(self, shrinkage: float) -> list[FloatArray]:
        """W^-1 times the means of each level, W the shrunk covariance; the last is kept, as settings often share it."""
        if self._last is None or self._last[0] != shrinkage:
            sphere = np.trace(self.within) / self.n_features
            within = (1 - shrinkage) * self.within
            within[np.diag_indices(len(within))] += (shrinkage + 1e-9) * sphere  # features may depend on each other
            factor = cho_factor(within, lower=True, overwrite_a=True)
            self._last = shrinkage, [cho_solve(factor, means.T).T for means in self.raw_means]
        return self._last[1]

    def _on_raw_features(self, weight: FloatArray) -> FloatArray:
        """Weights of standardised features, or of their components, as weights of the features themselves."""
        return np.asarray((weight if self.basis is None else weight @ self.basis) / self.spread)

    def _shrunk(self, raw: list[FloatArray], decay: float, strength: float) -> tuple[FloatArray, FloatArray]:
        """Means of the conditions, shrunk towards the parent mean level by level, and the parts of all nodes.

        A node's part is its mean less its parent's, times the root of its weight. Both are linear in the means of the
        levels, `raw`, and are made of W^-1 times these alike.
        """
        above = np.zeros((1, raw[0].shape[1]))  # the grand mean: features are centred
        parts = []
        for level, (means, counts) in enumerate(zip(raw, self.counts, strict=True)):
            parents = self.taxonomy.parents(level)
            prior = strength * self.n_views if level else 0.0  # the grand mean is no prior for a category
            total = counts + prior
            known = total > 0
            own = np.divide(counts * means + prior * above[parents], total, out=above[parents].copy(), where=known)
            parts.append((own - above[parents]) * np.sqrt(decay**level * counts / self.n_rows))
            above = own
        return above, np.concatenate(parts)


def _standardised(
    features: Floats,
) -> tuple[FloatArray, FloatArray, Floats]:
    """Mean and standard deviation of features, and the features standardised by parts, as views of layers are large."""
    pieces = [slice(start, start + 1024) for start in range(0, len(features), 1024)]
    centre = features.mean(axis=0, dtype=np.float64)
    variance = sum(np.square(features[piece] - centre).sum(axis=0) for piece in pieces) / len(features)
    spread = np.sqrt(variance) + 1e-12
    standard = np.empty_like(features)
    for piece in pieces:
        standard[piece] = (features[piece] - centre) / spread
    return centre, spread, standard


class Moments(NamedTuple):
    """Sums over images that the analysis needs; those of all images less those of a part are those of the others.

    `counts`: images of each condition, shape (n_fine, 1); `sums`: of their features, (n_fine, n_features); `products`:
    of all features with all, summed over images, (n_features, n_features).
    """

    counts: FloatArray
    sums: FloatArray
    products: FloatArray


def _moments(standard: FloatArray, fine: IntArray, n_fine: int) -> Moments:
    """Moments of standardised features, whose spread of about 1 keeps differences of such sums exact."""
    images = np.arange(len(fine))
    members = csr_array((np.ones(len(fine)), (fine, images)), shape=(n_fine, len(fine)))
    counts = np.bincount(fine, minlength=n_fine).astype(np.float64)[:, None]
    return Moments(counts, np.asarray(members @ standard), standard.T @ standard)
