"""All figures of one model on held-out cases, with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import EvaluationWarning
from hierderm.evaluation.catalogue import Direction, Key, direction
from hierderm.evaluation.figures import Figures, joined
from hierderm.evaluation.inference.bootstrap import case_draws, interval, resampled_means
from hierderm.evaluation.inference.groups import Gap, GroupFigure, gaps, group_figures, groups_of, neighbour_shares
from hierderm.evaluation.metrics.clustering import category_rows, kmeans_clusters
from hierderm.evaluation.metrics.ranking import K
from hierderm.evaluation.subject import Subject, subject_of
from hierderm.evaluation.tasks.families import FAMILIES
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray


@dataclass(frozen=True)
class Metric:
    """One figure: `value` in its interval [`low`, `high`], on `count` images or cases; `skipped` had no defined value.

    `level`: 'coarse', 'fine', a level between them by its name, or 'tree' for metrics of the tree as a whole.
    """

    level: str
    name: str
    value: float
    low: float
    high: float
    count: int
    skipped: int = 0

    @property
    def better(self) -> Direction:
        """Which way is better: 'higher', 'lower', or 'none' where neither is."""
        return direction(self.name)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, where an undefined figure is null."""
        return {**known(self.__dict__), "better": self.better}


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model, and what comparisons and reports need beside them.

    `replicates`: of each (level, metric), shape (n_rounds,), for paired differences; `per_image`: the values whose mean
    a figure is, shape (n_images,), those of retrieval linearised (`inference.gallery`), and `case_ids`, same
    shape, for permutation tests. `groups`, `gaps`, `neighbours`: by skin tone, body site and source. `details`: curves
    and tables for the report. `warnings`: what a reader must know before believing a figure.
    """

    model: str
    metrics: tuple[Metric, ...]
    categories: tuple[dict[str, Any], ...]
    n_images: int
    n_cases: int
    replicates: dict[Key, FloatArray] = field(repr=False, compare=False)
    per_image: dict[Key, FloatArray] = field(default_factory=dict, repr=False, compare=False)
    case_ids: npt.NDArray[np.str_] = field(default_factory=lambda: np.array([], dtype=str), repr=False, compare=False)
    groups: tuple[GroupFigure, ...] = field(default=(), repr=False)
    gaps: tuple[Gap, ...] = field(default=(), repr=False)
    neighbours: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, key: Key) -> Metric:
        """`evaluation["fine", "map_at_r"]`."""
        found = self.get(key)
        if found is None:
            raise KeyError(f"{key}; there are {[(m.level, m.name) for m in self.metrics]}")
        return found

    def get(self, key: Key) -> Metric | None:
        return next((metric for metric in self.metrics if (metric.level, metric.name) == key), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the replicates and the values of single images, for JSON."""
        return {
            "model": self.model,
            "n_images": self.n_images,
            "n_cases": self.n_cases,
            "warnings": list(self.warnings),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "categories": list(self.categories),
            "groups": [known(asdict(row)) for row in self.groups],
            "gaps": [known(asdict(row)) for row in self.gaps],
            "neighbours": list(self.neighbours),
            "details": self.details,
        }


def known(content: dict[str, Any]) -> dict[str, Any]:
    """With None for nan, which JSON lacks."""
    return {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in content.items()}


def evaluate_all(
    embeddings: EmbeddingTable | npt.ArrayLike,
    cases: CaseTable | pd.DataFrame,
    taxonomy: Taxonomy,
    *,
    config: EvaluationConfig | None = None,
    name: str = "embeddings",
    probabilities: npt.ArrayLike | None = None,
) -> Evaluation:
    """Judge any embeddings at every level of the tree.

    `embeddings`: shape (n_images, dim), row by row those of `cases`, of any length, or an EmbeddingTable;
    `cases`: a table with case_id and condition, and what else `hierderm.columns` names, at best a `split`: figures are
    those of the rows that say 'test' (of all rows without a split), 'validation' teaches temperature, thresholds and
    conformal sets, 'train' the k-NN vote, the probe and few-shot. `probabilities`: of the conditions, shape (n_images,
    n_fine), rows summing to 1. Faults of the table are a CaseTableError, a case in two splits among them; embeddings
    that do not fit it an EmbeddingError. What a reader must be told, a collapse or twins of test pictures, is in
    `Evaluation.warnings` and warned of.
    """
    chosen = config or EvaluationConfig()
    subject = subject_of(embeddings, cases, taxonomy, chosen, name=name, probabilities=probabilities)
    evaluation = evaluate_subject(subject, chosen.families)
    for text in evaluation.warnings:
        warnings.warn(f"{name}: {text}", EvaluationWarning, stacklevel=2)
    return evaluation


def evaluate_subject(subject: Subject, families: Sequence[str]) -> Evaluation:
    """The figures of some families, with intervals, groups and the table of categories."""
    config, case_ids = subject.config, subject.test.case_ids
    figures = joined([FAMILIES[family](subject) for family in families])
    draws = case_draws(case_ids, config.bootstrap_rounds, config.seed, subject.every_case)
    evaluation = with_intervals(subject, figures, draws)
    if config.groups and figures.per_image:
        groups = groups_of(subject.test.frame)
        evaluation = replace(
            evaluation,
            groups=tuple(group_figures(figures, groups, case_ids, draws, config.confidence)),
            gaps=tuple(gaps(figures, groups, case_ids, draws, config.confidence, config.permutations, config.seed)),
            neighbours=tuple(neighbour_shares(groups, subject.retrieval.nearest)) if "retrieval" in families else (),
        )
    return replace(evaluation, categories=tuple(_category_table(subject)) if "retrieval" in families else ())


def with_intervals(subject: Subject, figures: Figures, draws: npt.NDArray[np.uint16]) -> Evaluation:
    """Any figures of a subject as an Evaluation without groups and categories. `draws`: see `case_draws`."""
    _, first = np.unique(subject.test.case_ids, return_index=True)
    metrics, replicates = _with_intervals(figures, draws, first, subject.config.confidence)
    return Evaluation(
        subject.name,
        tuple(metrics),
        (),
        len(subject.test),
        len(first),
        replicates,
        _linear(figures.per_image, figures),
        subject.test.case_ids,
        details=dict(figures.details),
        warnings=figures.warnings,
    )


def _with_intervals(
    figures: Figures, draws: npt.NDArray[np.uint16], first: npt.NDArray[np.intp], confidence: float
) -> tuple[list[Metric], dict[Key, FloatArray]]:
    """`first`: the row of each case's first image: values of cases are resampled with the weights found there."""
    metrics: list[Metric] = []
    replicates: dict[Key, FloatArray] = {}
    for values, of_draws in ((figures.per_image, draws), (figures.per_case, draws[:, first])):
        if values:
            rounds = resampled_means(np.stack(list(_linear(values, figures).values()), axis=1), of_draws)
            for number, (key, of_key) in enumerate(values.items()):
                replicates[key] = rounds[:, number]
                metrics.append(_mean_metric(key, of_key, rounds[:, number], confidence))
    for statistic in figures.statistics:
        table = [statistic.compute(weights, number) for number, weights in enumerate(draws)]
        of_rounds = np.array(table).reshape(-1, len(statistic.keys))
        for number, (key, value) in enumerate(zip(statistic.keys, statistic.compute(None, -1), strict=True)):
            if statistic.resampled:
                replicates[key] = of_rounds[:, number]
            ends = interval(value, replicates.get(key, np.array([])), confidence)
            metrics.append(Metric(*key, float(value), *ends, draws.shape[1]))
    return metrics, replicates


def _linear(values: Mapping[Key, FloatArray], figures: Figures) -> dict[Key, FloatArray]:
    """The values as inference sees them: those of retrieval with what each image does in the gallery of the others."""
    return {k: figures.on_gallery[k].linearise(v) if k in figures.on_gallery else v for k, v in values.items()}


def _mean_metric(key: Key, values: FloatArray, rounds: FloatArray, confidence: float) -> Metric:
    defined = values[~np.isnan(values)]
    value = float(defined.mean()) if len(defined) else float("nan")
    return Metric(*key, value, *interval(value, rounds, confidence), len(defined), len(values) - len(defined))


def _category_table(subject: Subject) -> list[dict[str, Any]]:
    """Coarse figures of each category, its fine recall@1, the height of what its pictures bring up, where they went."""
    retrieval, names, labels = subject.retrieval, subject.taxonomy.names(0), subject.labels(0)
    coarse, fine = retrieval.levels[0].values, retrieval.levels[-1].values
    columns = {
        **{name: coarse[name] for name in ("recall_at_1", "map_at_r", "r_precision", "mrr")},
        "fine_recall_at_1": fine["recall_at_1"],
        f"lca_height_at_{K}": retrieval.tree[f"lca_height_at_{K}"],
    }
    clusters = kmeans_clusters(subject.test.embeddings, len(np.unique(labels)), subject.config.seed)
    rows = []
    for row in category_rows(labels, clusters):
        inside = labels == row.label
        rows.append(
            {
                "category": names[row.label],
                "n_images": row.n_images,
                "n_cases": len(np.unique(subject.test.case_ids[inside])),
                **{name: _mean_of_known(values[inside]) for name, values in columns.items()},
                "share_in_main_cluster": row.share_in_main_cluster,
                "purity_of_main_cluster": row.purity_of_main_cluster,
                "went_to": [[names[label], share] for label, share in row.went_to],
            }
        )
    return rows


def _mean_of_known(values: FloatArray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
