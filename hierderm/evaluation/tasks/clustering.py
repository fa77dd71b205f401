"""k-means and agglomerative clusters against the labels of each level, silhouettes, and the check for collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.metrics.agreement import AGREEMENT, Contingency
from hierderm.evaluation.metrics.clustering import silhouettes, ward_clusters
from hierderm.evaluation.metrics.collapse import collapse_warning, effective_rank, mean_cosine
from hierderm.evaluation.metrics.group_sums import Weights, once
from hierderm.evaluation.scores import Scores, Statistic
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray, IntArray


def clustering(subject: Subject) -> Scores:
    """Agreement of clusters and labels.

    k-means has as many clusters as labels occur and is averaged over its seeds; each bootstrap round takes the next
    seed's clusters, so the interval includes the variance between seeds. Agglomerative clustering takes some thousand
    images, drawn at random, and is cut at as many clusters as each level has labels.
    """
    embeddings, config = subject.test.embeddings, subject.config
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    labels = {name: subject.labels(level) for level, name in subject.levels}
    n_labels = {name: len(np.unique(level_labels)) for name, level_labels in labels.items()}
    for level, name in subject.levels:
        level_labels = labels[name]
        runs = subject.clusters(level, config.kmeans_seeds)
        label_values, *cluster_values = silhouettes(embeddings, [level_labels, *runs])
        per_image[name, "label_silhouette"] = label_values
        per_image[name, "cluster_silhouette"] = np.mean(cluster_values, axis=0)
        keys = tuple((name, metric) for metric in AGREEMENT)
        statistics.append(Statistic(keys, _agreement_of_runs(level_labels, runs)))
    sample = np.random.default_rng(config.seed).permutation(len(embeddings))[: config.agglomerative_images]
    cuts = ward_clusters(embeddings[sample], list(n_labels.values())) if len(sample) > 1 else []
    for (name, level_labels), clusters in zip(labels.items(), cuts, strict=False):
        keys = ((name, "agglomerative_ami"), (name, "agglomerative_purity"))
        overlap = Contingency(level_labels[sample], clusters)
        statistics.append(Statistic(keys, partial(_agreement_of_sample, overlap, sample)))
    rank, cosine = effective_rank(embeddings), mean_cosine(embeddings)
    described = ((TREE, "effective_rank"), (TREE, "mean_cosine"))
    statistics.append(Statistic(described, lambda *_: np.array([[rank, cosine]]), resampled=False))
    warning = collapse_warning(rank, cosine, n_labels[subject.levels[0][1]])
    return Scores(per_image, statistics=tuple(statistics), warnings=(warning,) if warning else ())


def _agreement_of_runs(labels: IntArray, runs: Sequence[IntArray]) -> Callable[[Weights, IntArray | None], FloatArray]:
    """The mean over runs; in a bootstrap round one run, its deviation from the mean cut to that of a mean of all."""
    overlaps = [Contingency(labels, clusters) for clusters in runs]

    def scores(run: int, weights: Weights) -> FloatArray:
        found = overlaps[run].agreement(weights)
        return np.stack([found[name] for name in AGREEMENT], axis=1)

    on_all = np.concatenate([scores(run, once(len(labels))[None]) for run in range(len(runs))])
    excess = (on_all - on_all.mean(axis=0)) * (1 - 1 / np.sqrt(len(runs)))

    def compute(weights: Weights, rounds: IntArray | None) -> FloatArray:
        if rounds is None:
            return np.asarray(np.mean([scores(run, weights) for run in range(len(runs))], axis=0))
        found = np.empty((len(weights), len(AGREEMENT)))
        for run in range(len(runs)):
            own = rounds % len(runs) == run
            found[own] = scores(run, weights[own]) - excess[run]
        return found

    return compute


def _agreement_of_sample(overlap: Contingency, sample: IntArray, weights: Weights, _: IntArray | None) -> FloatArray:
    found = overlap.agreement(weights[:, sample])
    return np.stack([found["ami"], found["purity"]], axis=1)
