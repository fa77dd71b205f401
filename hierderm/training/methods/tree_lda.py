"""Discriminant analysis on a tree: an embedding of frozen features in closed form, in seconds.

Fisher's discriminants ask for directions in which the means of classes lie far apart beside the spread within classes
(Fisher 1936; Rao 1948). In a tree the spread of the means has a part for each node: its mean about its parent's. All
parts alike is the flat analysis of the conditions; those of the categories alone is that of the categories; `decay`
lets each level count less than the one above. The mean of a condition with few pictures is mostly luck, so it is drawn
towards its parent's as if it had `strength` more pictures there (empirical Bayes: Efron and Morris 1973).

A picture has a coordinate for each node: how far its features lie in the direction that tells the node from its parent,
d_node^T W^-1 x with d_node the difference of the means and W the covariance within conditions. This is the space of the
discriminants with every direction scaled by the root of its discriminant ratio, turned so that axes are nodes.

The same means and covariance give each node of the tree its probability (normal classes that share a covariance: Rao
1948), that of a category being the sum over its conditions. The roots of these beliefs stand beside the discriminants
in the embedding, so that pictures are near, too, where the same nodes are likely (Bhattacharyya 1943).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold

from hierderm.config.settings import TreeLdaConfig
from hierderm.data.table import CaseTable
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Mask

SCALES = tuple(float(s) for s in np.geomspace(0.05, 5, 29))
FEWEST = 0.1  # training pictures that a condition without any counts for, when its chance is asked for


@dataclass(frozen=True)
class TreeDiscriminants:
    """An embedding of features, shape (n_images, n_features), and the logits of the conditions.

    `weight`: shape (n_nodes, n_features), and `bias`: (n_nodes,), of the discriminants; `condition_weight`: (n_fine,
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

    def logits(self, features: Floats) -> FloatArray:
        """Log-probabilities of the conditions but for a constant, shape (n_images, n_fine)."""
        return np.asarray(features @ self.condition_weight.T + self.condition_bias)

    def embed(self, features: Floats) -> FloatArray:
        """Unit-length embeddings, discriminants then beliefs: see `hierderm.model.heads.DiscriminantNeck`."""
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
        features: Floats,
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
        self.centre, self.spread, standard = _standardised(features)
        self.basis: FloatArray | None = None
        if features.shape[1] > components:
            n_components = min(components, len(standard) - 1)
            reduced = PCA(n_components, svd_solver="randomized", random_state=0).fit(standard)
            standard, self.basis = reduced.transform(standard), reduced.components_.astype(np.float64)
        self.standard = standard.astype(np.float64)
        self.moments = _moments(self.standard, self.fine, taxonomy.size(-1))
        self._use(self.moments)

    def leaving_out(self, left_out: Mask) -> TreeLda:
        """The analysis of the other images; `left_out` has shape (n_images,).

        How features are standardised and reduced stays, as no label has a part in it.
        """
        rows = np.tile(left_out, self.n_views)
        without = _moments(self.standard[rows], self.fine[rows], self.taxonomy.size(-1))
        other = copy(self)  # shares the features: the parts of a cross-validation need not hold them once each
        other._use(Moments(*(whole - part for whole, part in zip(self.moments, without, strict=True))))
        return other

    def _use(self, moments: Moments) -> None:
        """Means, counts and covariance of the images of these moments."""
        self.n_rows = moments.counts.sum()
        self.grand_mean = moments.sums.sum(axis=0) / self.n_rows
        self.raw_means, self.counts = [], list[FloatArray]()
        for level in range(self.taxonomy.n_levels):
            members = self._membership(level).T
            counts, sums = members @ moments.counts, members @ moments.sums
            self.raw_means.append((sums - counts * self.grand_mean) / np.maximum(counts, 1))  # 0 without any
            self.counts.append(counts)
        of_means = (moments.sums / np.maximum(moments.counts, 1)).T @ moments.sums
        self.within = (moments.products - of_means) / self.n_rows
        self._last: tuple[float, list[FloatArray]] | None = None

    def fit(self, *, shrinkage: float, decay: float, strength: float, belief: float = 0.0) -> TreeDiscriminants:
        """The discriminants of one setting.

        `shrinkage`: of the covariance within conditions towards a sphere, in [0, 1]; `decay`: weight of each level
        beside the one above, >= 0: 1 is flat, 0 the top level alone; `strength`: images that a node's parent counts
        for, >= 0; `belief`: share of the beliefs in the cosine, in [0, 1).
        """
        means, _ = self._drawn(self.raw_means, decay, strength)
        solved, directions = self._drawn(self._beside_spread(shrinkage), decay, strength)
        chances = np.log(np.maximum(self.counts[-1][:, 0] / self.n_views, FEWEST) * self.n_views / self.n_rows)
        weight, condition_weight = self._on_raw_features(directions), self._on_raw_features(solved)
        return TreeDiscriminants(
            weight,
            -weight @ self.centre - directions @ self.grand_mean,
            condition_weight,
            chances - (means * solved).sum(axis=1) / 2 - condition_weight @ self.centre - solved @ self.grand_mean,
            np.concatenate([self._membership(level) for level in self.believed], axis=1),
            len(self.believed),
            belief,
        )

    def _beside_spread(self, shrinkage: float) -> list[FloatArray]:
        """W^-1 times the means of each level, W the shrunk covariance; the last is kept, as settings often share it."""
        if self._last is None or self._last[0] != shrinkage:
            n_features = len(self.within)
            sphere = np.trace(self.within) / n_features
            within = (1 - shrinkage) * self.within
            within[np.diag_indices(n_features)] += (shrinkage + 1e-9) * sphere  # features may depend on each other
            factor = cho_factor(within, lower=True, overwrite_a=True)
            self._last = shrinkage, [cho_solve(factor, means.T).T for means in self.raw_means]
        return self._last[1]

    def _on_raw_features(self, weight: FloatArray) -> FloatArray:
        """Weights of standardised features, or of their components, as weights of the features as they came."""
        return np.asarray((weight if self.basis is None else weight @ self.basis) / self.spread)

    def _membership(self, level: int) -> FloatArray:
        return np.eye(self.taxonomy.size(level))[self.taxonomy.ancestors[:, level]]

    def _drawn(self, raw: list[FloatArray], decay: float, strength: float) -> tuple[FloatArray, FloatArray]:
        """Means of the conditions, drawn to their parents level by level, and the parts of all nodes.

        A node's part is its mean less its parent's, times the root of its weight. Both are linear in the means of the
        levels, `raw`, and are made of W^-1 times these alike.
        """
        above = np.zeros((1, raw[0].shape[1]))  # the grand mean: features are centred
        parts = []
        for level, (means, counts) in enumerate(zip(raw, self.counts, strict=True)):
            parents = np.array([max(node.parent, 0) for node in self.taxonomy.levels[level]])
            drawn = strength * self.n_views if level else 0.0  # the grand mean is no prior for a category
            total = counts + drawn
            known = total > 0
            own = np.divide(counts * means + drawn * above[parents], total, out=above[parents].copy(), where=known)
            parts.append((own - above[parents]) * np.sqrt(decay**level * counts / self.n_rows))
            above = own
        return above, np.concatenate(parts)


def _standardised(
    features: Floats,
) -> tuple[FloatArray, FloatArray, Floats]:
    """Mean and spread of features, and these less and over them, by rows at a time: views of all layers are large."""
    pieces = [slice(start, start + 1024) for start in range(0, len(features), 1024)]
    centre = features.mean(axis=0, dtype=np.float64)
    variance = sum(np.square(features[piece] - centre).sum(axis=0) for piece in pieces) / len(features)
    spread = np.sqrt(variance) + 1e-12
    standard = np.empty_like(features)
    for piece in pieces:
        standard[piece] = (features[piece] - centre) / spread
    return centre, spread, standard


class Moments(NamedTuple):
    """What of images an analysis needs, and what can be taken from: those of all less those of a part are the others'.

    `counts`: images of each condition, shape (n_fine, 1); `sums`: of their features, (n_fine, n_features); `products`:
    of all features with all, summed over images, (n_features, n_features).
    """

    counts: FloatArray
    sums: FloatArray
    products: FloatArray


def _moments(standard: FloatArray, fine: IntArray, n_fine: int) -> Moments:
    """Of features of spread about 1, so that differences of sums are as good as sums of differences."""
    images = np.arange(len(fine))
    members = csr_array((np.ones(len(fine)), (fine, images)), shape=(n_fine, len(fine)))
    counts = np.bincount(fine, minlength=n_fine).astype(np.float64)[:, None]
    return Moments(counts, np.asarray(members @ standard), standard.T @ standard)


class Held(NamedTuple):
    """Features of images, shape (n_images, n_features), and their cases."""

    features: Floats
    table: CaseTable


def every_setting(
    whole: TreeLda,
    grid: TreeLdaConfig,
    train: Held,
    validation: Held,
    score: Callable[[FloatArray, CaseTable], dict[str, float]],
    monitor: str,
) -> Iterator[tuple[dict[str, float], TreeDiscriminants]]:
    """Each setting of the grid with its figures, and the analysis of all training images by it.

    The figures are the setting, the `score` on validation, and as "held_out" the mean of `score`'s `monitor` over
    images that were not learnt from: those of validation and, with `grid.folds`, of each part of the training cases in
    turn, embedded by the analysis of the others. The setting with the largest is the one to take.
    """
    held_out = [(whole, validation)]
    n_folds = min(grid.folds, len(np.unique(train.table.case_ids)))
    if n_folds > 1:
        folds = GroupKFold(n_folds, shuffle=True, random_state=0).split(train.features, groups=train.table.case_ids)
        for _, rows in folds:
            left_out = np.isin(np.arange(len(train.table)), rows)
            held_out.append((whole.leaving_out(left_out), Held(train.features[left_out], train.table.select(left_out))))
    sizes = [len(held.table) for _, held in held_out]
    for shrinkage, decay, strength in itertools.product(grid.shrinkages, grid.decays, grid.strengths):
        setting = {"shrinkage": shrinkage, "decay": decay, "strength": strength}
        found = [lda.fit(**setting) for lda, _ in held_out]
        for belief in grid.beliefs:
            believing = [replace(analysis, belief=belief) for analysis in found]
            scores = [
                score(analysis.embed(held.features), held.table)
                for analysis, (_, held) in zip(believing, held_out, strict=True)
            ]
            mean = float(np.average([figures[monitor] for figures in scores], weights=sizes))
            yield {**setting, "belief": belief, **scores[0], "held_out": mean}, believing[0]


def best_scale(logits: FloatArray, fine: IntArray) -> float:
    """The factor of the logits under which the labels of validation images are most likely."""

    def likelihood(scale: float) -> float:
        return float(log_softmax(scale * logits, axis=1)[np.arange(len(fine)), fine].mean())

    return max(SCALES, key=likelihood)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))
