"""All figures of one model on held-out cases, with intervals, and paired differences between models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hierderm import columns as c
from hierderm.config import EvaluationConfig
from hierderm.embeddings import Aggregation, EmbeddingTable
from hierderm.errors import EmbeddingError
from hierderm.evaluate.bootstrap import case_draws, interval, resampled_means
from hierderm.evaluate.clustering import (
    AGREEMENT,
    agreement,
    category_rows,
    contingency,
    kmeans_clusters,
    label_silhouette,
)
from hierderm.evaluate.ranking import Labelled
from hierderm.evaluate.retrieval import K, LevelScores, RetrievalScores, case_scores, retrieval_scores
from hierderm.taxonomy import IntArray, Taxonomy

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, str]  # level name, metric name
Direction = Literal["higher", "lower"]
LOWER_IS_BETTER = (f"lca_height_at_{K}", "mistake_severity")
AGGREGATIONS: tuple[Aggregation, ...] = ("best", "mean")


def direction(name: str) -> Direction:
    """Whether a higher or a lower value of a metric is better."""
    return "lower" if name in LOWER_IS_BETTER else "higher"


@dataclass(frozen=True)
class Metric:
    """One figure: `value` in its interval [`low`, `high`], on `count` images or cases; `skipped` had no defined value.

    `level`: 'coarse', 'fine', or 'tree' for the metrics that give credit by the tree.
    """

    level: str
    name: str
    value: float
    low: float
    high: float
    count: int
    skipped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON, where an undefined figure is null."""
        known = {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in self.__dict__.items()}
        return {**known, "better": direction(self.name)}


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model. `replicates`: of each (level, metric), shape (n_rounds,), for paired differences."""

    model: str
    metrics: tuple[Metric, ...]
    categories: tuple[dict[str, Any], ...]
    n_images: int
    n_cases: int
    replicates: dict[Key, FloatArray] = field(repr=False, compare=False)

    def __getitem__(self, key: Key) -> Metric:
        """`evaluation["fine", "map_at_r"]`."""
        for metric in self.metrics:
            if (metric.level, metric.name) == key:
                return metric
        raise KeyError(f"{key}; there are {[(m.level, m.name) for m in self.metrics]}")

    def get(self, key: Key) -> Metric | None:
        return next((metric for metric in self.metrics if (metric.level, metric.name) == key), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "n_images": self.n_images,
            "n_cases": self.n_cases,
            "metrics": [metric.to_dict() for metric in self.metrics],
            "categories": list(self.categories),
        }


@dataclass(frozen=True)
class Difference:
    """`model` minus `reference` in one metric, with the paired interval; `resolved` where it excludes 0."""

    level: str
    name: str
    model: str
    reference: str
    value: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        return bool(self.high < 0) if direction(self.name) == "lower" else bool(self.low > 0)

    @property
    def worse(self) -> bool:
        return bool(self.low > 0) if direction(self.name) == "lower" else bool(self.high < 0)

    @property
    def resolved(self) -> bool:
        return self.better or self.worse

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "resolved": self.resolved}


def evaluate_embeddings(
    table: EmbeddingTable,
    taxonomy: Taxonomy,
    config: EvaluationConfig,
    *,
    name: str,
    train_case_ids: npt.NDArray[np.str_] | None = None,
) -> Evaluation:
    """Score held-out embeddings at the top and the finest level of the tree.

    Cases that occur in `train_case_ids` are refused: figures on pictures that were trained on mean nothing.
    """
    refuse_leak(table.case_ids, train_case_ids)
    fine = taxonomy.encode(table.frame[c.CONDITION])
    levels = [0] if taxonomy.n_levels == 1 else [0, taxonomy.fine_level]
    level_names = ["fine"] if taxonomy.n_levels == 1 else ["coarse", "fine"]
    labels = [taxonomy.to_level(fine, level) for level in levels]
    draws = case_draws(table.case_ids, config.bootstrap_rounds, config.seed)
    pictures = Labelled(table.embeddings, taxonomy.ancestors[fine].T, table.case_ids)
    retrieval = retrieval_scores(pictures)
    metrics: list[Metric] = []
    replicates: dict[Key, FloatArray] = {}

    def add(level_name: str, values: dict[str, FloatArray], of_draws: npt.NDArray[np.uint16]) -> None:
        for metric_name, of_queries in values.items():
            metric, rounds = _mean_metric(level_name, metric_name, of_queries, of_draws, config)
            metrics.append(metric)
            replicates[level_name, metric_name] = rounds

    for level, level_name, level_labels in zip(levels, level_names, labels, strict=True):
        values = {**retrieval.levels[level].values, "silhouette": label_silhouette(table.embeddings, level_labels)}
        if table.probabilities is not None:
            predicted = taxonomy.sum_up(table.probabilities, level).argmax(axis=1)
            values["top1_accuracy"] = (predicted == level_labels).astype(np.float64)
        add(level_name, values, draws)
        clustered = _clustering_metrics(table, level_name, level_labels, draws, config)
        metrics += [metric for metric, _ in clustered]
        replicates |= {(metric.level, metric.name): rounds for metric, rounds in clustered}
    if taxonomy.n_levels > 1:
        add("tree", retrieval.tree, draws)
    _, first = np.unique(table.case_ids, return_index=True)
    if len(first) < len(table):
        for level_name, of_cases in _case_metrics(pictures, levels, level_names).items():
            add(level_name, of_cases, draws[:, first])
    categories = _category_table(table, taxonomy, labels[0], retrieval, config)
    n_cases = len(first)
    return Evaluation(name, tuple(metrics), tuple(categories), len(table), n_cases, replicates)


def refuse_leak(case_ids: npt.NDArray[np.str_], train_case_ids: npt.NDArray[np.str_] | None) -> None:
    """EmbeddingError where a case to be evaluated was trained on."""
    shared = np.intersect1d(case_ids, train_case_ids) if train_case_ids is not None else np.array([])
    if len(shared):
        raise EmbeddingError(
            f"{len(shared)} case(s) of the evaluation are training cases, e.g. '{shared[0]}': the figures would be "
            "those of pictures the model has seen. Evaluate the test split only."
        )


def _mean_metric(
    level: str, name: str, values: FloatArray, draws: npt.NDArray[np.uint16], config: EvaluationConfig
) -> tuple[Metric, FloatArray]:
    known = values[~np.isnan(values)]
    value = float(known.mean()) if len(known) else float("nan")
    rounds = resampled_means(values, draws)
    low, high = interval(value, rounds, config.confidence)
    return Metric(level, name, value, low, high, len(known), len(values) - len(known)), rounds


def _clustering_metrics(
    table: EmbeddingTable,
    level: str,
    labels: IntArray,
    draws: npt.NDArray[np.uint16],
    config: EvaluationConfig,
) -> list[tuple[Metric, FloatArray]]:
    """k-means with as many clusters as labels occur, averaged over its seeds.

    Each bootstrap round takes the next seed's clusters, so the interval covers the luck of k-means too.
    """
    k = len(np.unique(labels))
    runs = [kmeans_clusters(table.embeddings, k, config.seed + run) for run in range(config.kmeans_seeds)]
    on_all = [agreement(contingency(labels, clusters)) for clusters in runs]
    rounds = [agreement(contingency(labels, runs[number % len(runs)], weights)) for number, weights in enumerate(draws)]
    result = []
    for name in AGREEMENT:
        value = float(np.mean([scores[name] for scores in on_all]))
        of_rounds = np.array([scores[name] for scores in rounds])
        result.append(
            (Metric(level, name, value, *interval(value, of_rounds, config.confidence), len(labels)), of_rounds)
        )
    return result


def _case_metrics(pictures: Labelled, levels: list[int], level_names: list[str]) -> dict[str, dict[str, FloatArray]]:
    """Retrieval of cases by cases, once with each way to compare cases of several pictures."""
    found: dict[str, dict[str, FloatArray]] = {name: {} for name in level_names}
    for aggregation in AGGREGATIONS:
        scores = case_scores(pictures, aggregation)
        for level, name in zip(levels, level_names, strict=True):
            for metric in ("recall_at_1", "map_at_r"):
                found[name][f"case_{metric}_{aggregation}"] = scores.levels[level].values[metric]
    return found


def _category_table(
    table: EmbeddingTable,
    taxonomy: Taxonomy,
    labels: IntArray,
    retrieval: RetrievalScores,
    config: EvaluationConfig,
) -> list[dict[str, Any]]:
    """Coarse figures of each category, its fine recall@1, and the height of what its pictures bring up."""
    coarse, fine = retrieval.levels[0].values, retrieval.levels[-1].values
    columns = {
        **{name: coarse[name] for name in ("recall_at_1", "map_at_r", "r_precision", "mrr")},
        "fine_recall_at_1": fine["recall_at_1"],
        f"lca_height_at_{K}": retrieval.tree[f"lca_height_at_{K}"],
    }
    clusters = kmeans_clusters(table.embeddings, len(np.unique(labels)), config.seed)
    rows = []
    for row in category_rows(labels, clusters):
        inside = labels == row.label
        rows.append(
            {
                "category": taxonomy.names(0)[row.label],
                "n_images": row.n_images,
                "n_cases": len(np.unique(table.case_ids[inside])),
                **{name: _mean_of_known(values[inside]) for name, values in columns.items()},
                "share_in_main_cluster": row.share_in_main_cluster,
                "purity_of_main_cluster": row.purity_of_main_cluster,
            }
        )
    return rows


def _mean_of_known(values: FloatArray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def paired_difference(model: Evaluation, reference: Evaluation, key: Key, confidence: float) -> Difference | None:
    """`model` minus `reference` on the same draws of the same cases; None where either lacks the metric."""
    first, second = model.get(key), reference.get(key)
    if first is None or second is None or np.isnan(first.value) or np.isnan(second.value):
        return None
    if model.n_images != reference.n_images or len(model.replicates[key]) != len(reference.replicates[key]):
        raise EmbeddingError("a paired difference needs both models on the same images and bootstrap rounds.")
    value = first.value - second.value
    low, high = interval(value, model.replicates[key] - reference.replicates[key], confidence)
    return Difference(*key, model.model, reference.model, value, low, high)


def mean_map_at_r(pictures: Labelled) -> FloatArray:
    """MAP@R of each level, shape (n_levels,): what training monitors. 0 where no query has a relevant image."""

    def mean(scores: LevelScores) -> float:
        return _mean_of_known(scores.values["map_at_r"]) or 0.0

    return np.array([mean(scores) for scores in retrieval_scores(pictures).levels])
