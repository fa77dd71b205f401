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

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

from hierderm.model.heads import Discriminants, node_membership
from hierderm.taxonomy.levels import probability_weights
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.ranks import added_up, rank, world_size
from hierderm.types import FloatArray, Floats, IntArray, Mask

BLOCK = 1024  # rows at a time: views of layers are large
MIN_IMAGES = 0.1  # training images that a condition without any counts for in its prior probability


class TreeAnalysis:
    """Statistics of the training images that all settings share, computed once; `fit` then takes a moment.

    `features`: shape (n_views * n_images, n_features), all images of one view after the other, as one array or as
    shards; `fine`: their conditions, shape (n_images,). Views are augmented copies, so what augmentation changes counts
    as covariance within conditions. More than `components` features are first reduced to as many principal components.
    `probability_levels`: levels whose node probabilities enter the embedding, with their weights; by default all alike.

    All that the analysis needs are sums over images. They are taken some rows at a time, so that shards may lie on the
    disk; processes that run together (`hierderm.training.ranks`) take a part of the rows each and add up. Where
    features are reduced, every process holds all of them.
    """

    def __init__(
        self,
        features: Floats | Sequence[Floats],
        fine: IntArray,
        taxonomy: Taxonomy,
        *,
        n_views: int = 1,
        components: int = 2048,
        probability_levels: Mapping[str, float] | None = None,
    ) -> None:
        self.taxonomy, self.n_views = taxonomy, n_views
        self.weights = probability_weights(taxonomy, probability_levels or {})
        self.fine = np.tile(fine, n_views)
        self.rows = _Rows([features] if isinstance(features, np.ndarray) else features)
        self.centre, self.spread = self.rows.centre, self.rows.spread
        self.basis: FloatArray | None = None
        self.n_features = self.rows.n_features
        if self.n_features > components:
            standard, self.n_features = self.rows.standard(), min(components, len(self.fine) - 1)
            reduced = PCA(self.n_features, svd_solver="randomized", random_state=0).fit(standard)
            self.rows = _Rows([reduced.transform(standard)], standardise=False)
            self.basis = reduced.components_.astype(np.float64)
        elif len(self.fine) <= self.n_features:  # no loss: means differ, and images vary, only along their own axes
            standard = self.rows.standard()
            axes = PCA(len(standard) - 1, svd_solver="full").fit(standard.astype(np.float64))
            self.rows, self.basis = _Rows([axes.transform(standard)], standardise=False), axes.components_
        self.moments = self.rows.moments(self.fine, taxonomy.size(-1))
        self._use(self.moments)

    def leaving_out(self, left_out: Mask) -> TreeAnalysis:
        """The analysis of the other images; `left_out` has shape (n_images,).

        Features stay standardised and reduced as they are: no label is used for that.
        """
        without = self.rows.moments(self.fine, self.taxonomy.size(-1), np.tile(left_out, self.n_views))
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

    def fit(
        self,
        *,
        shrinkage: float,
        decay: float,
        strength: float,
        probability_share: float = 0.0,
        probability_temperature: float = 1.0,
    ) -> Discriminants:
        """The discriminants of one setting.

        `shrinkage`: of the covariance within conditions towards a sphere, in [0, 1]; `decay`: weight of each level
        relative to the one above, >= 0: 1 is flat, 0 the top level alone; `strength`: images that a node's parent
        counts for, >= 0; `probability_share`: share of the node probabilities in the cosine, in [0, 1);
        `probability_temperature`: by which the logits of these are divided, > 0. The scale makes up for it in logits.
        """
        means, _ = self._shrunk(self.raw_means, decay, strength)
        solved, directions = self._shrunk(self._solved_means(shrinkage), decay, strength)
        log_prior = np.log(np.maximum(self.counts[-1][:, 0] / self.n_views, MIN_IMAGES) * self.n_views / self.n_rows)
        weight, condition_weight = self._on_raw_features(directions), self._on_raw_features(solved)
        bias = log_prior - (means * solved).sum(axis=1) / 2 - condition_weight @ self.centre - solved @ self.grand_mean
        return Discriminants(
            weight,
            -weight @ self.centre - directions @ self.grand_mean,
            condition_weight / probability_temperature,
            bias / probability_temperature,
            node_membership(self.taxonomy, self.weights, self.taxonomy.fine_level),
            tuple(self.weights),
            probability_share,
            probability_temperature,
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


class Moments(NamedTuple):
    """Sums over images that the analysis needs; those of all images less those of a part are those of the others.

    `counts`: images of each condition, shape (n_fine, 1); `sums`: of their features, (n_fine, n_features); `products`:
    of all features with all, summed over images, (n_features, n_features).
    """

    counts: FloatArray
    sums: FloatArray
    products: FloatArray


class _Rows:
    """Rows of features in shards, and what standardises them; read some at a time, as all of them may be large."""

    def __init__(self, shards: Sequence[Floats], *, standardise: bool = True) -> None:
        self.shards, self.n_features = shards, shards[0].shape[1]
        self.centre, self.spread = np.zeros(self.n_features), np.ones(self.n_features)
        if standardise:
            n = sum(map(len, shards))
            self.centre = self._sum(lambda block: block.sum(axis=0, dtype=np.float64)) / n
            self.spread = np.sqrt(self._sum(lambda block: np.square(block - self.centre).sum(axis=0)) / n) + 1e-12

    def standard(self) -> Floats:
        """All rows, standardised, in memory."""
        return np.concatenate([self._standard(block) for _, block in self._blocks()])

    def moments(self, fine: IntArray, n_fine: int, chosen: Mask | None = None) -> Moments:
        """Moments of the standardised rows, or of those `chosen`, whose conditions are `fine`, both of all rows.

        The spread of about 1 keeps differences of such sums exact.
        """
        counts = np.zeros(n_fine)
        sums, products = np.zeros((n_fine, self.n_features)), np.zeros((self.n_features, self.n_features))
        for place, block in self._own_blocks():
            rows = slice(None) if chosen is None else chosen[place]
            standard, labels = self._standard(block[rows]).astype(np.float64), fine[place][rows]
            members = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(n_fine, len(labels)))
            counts += np.bincount(labels, minlength=n_fine)
            sums += np.asarray(members @ standard)
            products += standard.T @ standard
        return Moments(added_up(counts)[:, None], added_up(sums), added_up(products))

    def _standard(self, block: Floats) -> Floats:
        return np.asarray(((block - self.centre) / self.spread).astype(block.dtype))

    def _sum(self, compute: Callable[[Floats], FloatArray]) -> FloatArray:
        """The sum of `compute`, shape (n_features,), over the blocks of all processes."""
        return added_up(sum((compute(block) for _, block in self._own_blocks()), np.zeros(self.n_features)))

    def _own_blocks(self) -> Iterator[tuple[slice, Floats]]:
        """The blocks that this process adds up."""
        return islice(self._blocks(), rank(), None, world_size())

    def _blocks(self) -> Iterator[tuple[slice, Floats]]:
        """Where some rows stand among all, and these rows."""
        first = 0
        for shard in self.shards:
            for start in range(0, len(shard), BLOCK):
                block = shard[start : start + BLOCK]
                yield slice(first + start, first + start + len(block)), block
            first += len(shard)
