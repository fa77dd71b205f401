"""All metrics of one model on held-out cases, with intervals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Encodes, embeddings_of
from hierderm.engines import return_memory
from hierderm.errors import EvaluationWarning
from hierderm.evaluation.catalogue import HEADLINES, Direction, Key, direction, metric_name
from hierderm.evaluation.categories import category_table
from hierderm.evaluation.inference.bootstrap import interval, resampled_means
from hierderm.evaluation.inference.groups import Gap, GroupScore, gaps, group_scores, groups_of, neighbour_shares
from hierderm.evaluation.metrics.group_sums import once
from hierderm.evaluation.partitions import group_warnings, partition_warnings
from hierderm.evaluation.scores import Scores, mean_of_known
from hierderm.evaluation.subject import Subject, case_table, subject_of
from hierderm.evaluation.tasks.registry import LARGE_TASKS, TOP_K_ABOVE, Task, tasks_named
from hierderm.json_files import Known
from hierderm.notebook import with_table
from hierderm.progress import Progress
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """The value of one metric.

    Attributes:
        level: 'coarse', 'fine', a level between them by its name, or 'tree' for metrics of the tree as a whole.
        name: As in the catalogue, e.g. 'map_at_r'.
        value: nan where it is not defined.
        low: Lower end of its interval, nan without one.
        high: Upper end.
        count: Images, or cases, with a defined value.
        skipped: Images, or cases, without one.
    """

    level: str
    name: str
    value: Known
    low: Known
    high: Known
    count: int
    skipped: int = 0

    @property
    def better(self) -> Direction:
        """Which way is better: 'higher', 'lower', or 'none' where neither is."""
        return direction(self.name)

    def to_dict(self) -> dict[str, Any]:
        """The metric for JSON.

        Returns:
            Its fields, with None for nan.
        """
        return {**known(self.__dict__), "better": self.better}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The metrics of one model, and what comparisons and reports need with them.

    Attributes:
        model: Its name.
        metrics: One Metric a level and name.
        categories: A row a category: its scores, its main cluster, where its images went.
        n_images: Images that were scored.
        n_cases: Their cases.
        replicates: Of each (level, metric) the values in the bootstrap rounds, shape (n_rounds,), for paired
            differences.
        per_image: The values whose mean a metric is, shape (n_images,); those of retrieval linearised
            (`hierderm.evaluation.inference.influence`). For permutation tests.
        case_ids: Of the images, shape (n_images,).
        groups: Metrics by skin tone, body site and source.
        gaps: Between the best and the worst group.
        neighbours: Which skin tones the neighbours of each skin tone have.
        details: Curves and tables for the report.
        warnings: What a reader must know before trusting the values.
    """

    model: str
    metrics: tuple[Metric, ...]
    categories: tuple[dict[str, Any], ...]
    n_images: int
    n_cases: int
    replicates: dict[Key, FloatArray] = field(compare=False)
    per_image: dict[Key, FloatArray] = field(default_factory=dict, compare=False)
    case_ids: npt.NDArray[np.str_] = field(default_factory=lambda: np.array([], dtype=str), compare=False)
    groups: tuple[GroupScore, ...] = ()
    gaps: tuple[Gap, ...] = ()
    neighbours: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The headlines; `to_pandas` has every metric."""
        found = [(metric_name(*key), self.get(key)) for key in HEADLINES]
        shown = [f"{title} {m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for title, m in found if m is not None]
        counts = f"{len(self.metrics)} metrics of {self.n_images} images of {self.n_cases} cases"
        warned = [f"{len(self.warnings)} warning(s)"] if self.warnings else []
        return f"Evaluation({self.model!r}: {'; '.join([counts, *shown, *warned])})"

    def _repr_html_(self) -> str:
        """The headlines as a table."""
        frame = self.to_pandas()
        keys = zip(frame["level"], frame["metric"], strict=True)
        return with_table(self, frame[[key in HEADLINES for key in keys]])

    def __getitem__(self, key: Key) -> Metric:
        """`evaluation["fine", "map_at_r"]`."""
        found = self.get(key)
        if found is None:
            raise KeyError(f"{key}; there are {[(m.level, m.name) for m in self.metrics]}")
        return found

    def get(self, key: Key) -> Metric | None:
        """The metric of a level and name.

        Args:
            key: Level and name, such as ('fine', 'map_at_r').

        Returns:
            The metric; None where it was not computed.
        """
        return next((metric for metric in self.metrics if (metric.level, metric.name) == key), None)

    def to_pandas(
        self, part: Literal["metrics", "groups", "gaps", "categories", "neighbours"] = "metrics"
    ) -> pd.DataFrame:
        """One of the tables of the evaluation; a list of `paired_difference` is one by `pd.DataFrame(differences)`.

        Args:
            part: 'metrics', a row each: level, metric, value, low, high, count, skipped, better; or 'groups', 'gaps',
                'categories' and 'neighbours', with the fields of their rows.

        Returns:
            The table; without rows where the evaluation has none of them.
        """
        if part != "metrics":
            return pd.DataFrame(getattr(self, part))
        rows = [{**metric.__dict__, "better": metric.better} for metric in self.metrics]
        columns = ["level", "name", "value", "low", "high", "count", "skipped", "better"]
        return pd.DataFrame(rows, columns=columns).rename(columns={"name": "metric"})

    def to_dict(self) -> dict[str, Any]:
        """The evaluation for JSON.

        Returns:
            All of it but the replicates and the values of single images.
        """
        return {
            "model": self.model,
            "n_images": self.n_images,
            "n_cases": self.n_cases,
            "warnings": list(self.warnings),
            "metrics": [metric.to_dict() for metric in self.metrics],
            "categories": list(self.categories),
            "groups": [known(row.__dict__) for row in self.groups],
            "gaps": [known(row.__dict__) for row in self.gaps],
            "neighbours": list(self.neighbours),
            "details": self.details,
        }


def known(content: dict[str, Any]) -> dict[str, Any]:
    """With None for nan, which JSON lacks."""
    return {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in content.items()}


def evaluate(
    embeddings: EmbeddingTable | Encodes | npt.ArrayLike | str | Path,
    cases: CaseTable | pd.DataFrame | str | Path,
    taxonomy: Taxonomy | str | Path,
    *,
    tasks: Sequence[str] | None = None,
    config: EvaluationConfig | None = None,
    name: str = "embeddings",
    probabilities: npt.ArrayLike | str | Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate any embeddings, or any model, at every level of the tree.

    With a `split` column the rows that say 'test' are scored; 'validation' teaches temperature, thresholds and
    conformal sets, 'train' the k-NN vote, the linear probe and few-shot prototypes. Without one all rows are scored.
    Above 200,000 test images the default tasks are those that do not compare all images with all: the first neighbours
    come through an index. What a reader must know, that or a collapse or twins of test images, is in
    `Evaluation.warnings` and warned of.

    Args:
        embeddings: An array, shape (n_images, dim), of any length, or an .npy file, row by row those of `cases`; an
            EmbeddingTable or its folder; or a model, anything with `encode(paths) -> array`.
        cases: A table with the columns case_id and condition, and what else `hierderm.columns` names, or its CSV or
            Parquet file. Image files are needed for a model only.
        taxonomy: The tree, the id of a shipped one such as 'scin', or a file.
        tasks: Names of tasks or suites (`hierderm.evaluation.tasks.registry`); by default those of `config`.
        config: How much work goes into scores and intervals.
        name: Of the model, in messages and tables.
        probabilities: Of the conditions, shape (n_images, n_fine), rows summing to 1, or an .npy file.
        progress: Show a progress bar; by default in a terminal only.

    Returns:
        The metrics with intervals over cases.

    Raises:
        CaseTableError: Faults of the table, a case in two splits among them.
        EmbeddingError: The embeddings do not fit the table, or their model was trained on another split of it.
        BenchmarkError: A task is not known.
    """
    chosen = config or EvaluationConfig()
    wanted = tasks_named(tasks or chosen.tasks)
    table = case_table(cases, taxonomy)
    subject = subject_of(embeddings_of(embeddings, table, probabilities), table, chosen, name=name)
    notes: tuple[str, ...] = ()
    if not tasks and chosen.tasks == EvaluationConfig().tasks and len(subject.test) > TOP_K_ABOVE:
        left_out = ", ".join(name for name in chosen.tasks if name not in LARGE_TASKS)
        notes = (
            f"With more than {TOP_K_ABOVE:,} test images the default tasks are {', '.join(LARGE_TASKS)}: the first "
            f"neighbours come through an index. Tasks that compare all images with all ({left_out}) run by name.",
        )
        logger.info(notes[0])
        wanted = tasks_named(LARGE_TASKS)
    evaluation = evaluate_subject(subject, wanted, progress=progress)
    evaluation = replace(evaluation, warnings=notes + evaluation.warnings)
    for text in evaluation.warnings:
        warnings.warn(f"{name}: {text}", EvaluationWarning, stacklevel=2)
    return evaluation


def evaluate_subject(subject: Subject, tasks: Sequence[Task], *, progress: bool | None = None) -> Evaluation:
    """The metrics of some tasks, with intervals, groups and the table of categories."""
    config, case_ids = subject.config, subject.test.case_ids
    with Progress("Evaluating", len(tasks) + 2, unit="steps", shown=progress) as bar:
        parts = []
        for task in tasks:
            bar.what = f"Evaluating: {task.name}"
            parts.append(task.scores(subject))
            return_memory()
            bar.update()
        scores = Scores.joined(parts)
        bar.what = "Evaluating: intervals"
        evaluation = _without_groups(subject, scores)
        bar.update()
        bar.what = "Evaluating: groups"
        ranked = any(task.name == "retrieval" for task in tasks)
        if config.groups and scores.per_image:
            groups, draws = groups_of(subject.test.frame), subject.draws
            confidence, n_permutations = config.confidence, config.permutations
            evaluation = replace(
                evaluation,
                groups=tuple(group_scores(scores, groups, case_ids, draws, confidence)),
                gaps=tuple(gaps(scores, groups, case_ids, draws, confidence, n_permutations, config.seed)),
                neighbours=tuple(neighbour_shares(groups, subject.retrieval.nearest)) if ranked else (),
                warnings=(*evaluation.warnings, *group_warnings(subject, groups)),
            )
        return replace(evaluation, categories=tuple(category_table(subject)) if ranked else ())


def _without_groups(subject: Subject, scores: Scores) -> Evaluation:
    """Any scores of a subject as an Evaluation without groups and categories."""
    _, first = np.unique(subject.test.case_ids, return_index=True)
    metrics, replicates = _with_intervals(scores, subject.draws, first, subject.config.confidence)
    return Evaluation(
        subject.name,
        tuple(metrics),
        (),
        len(subject.test),
        len(first),
        replicates,
        scores.linearised(scores.per_image),
        subject.test.case_ids,
        details=dict(scores.details),
        warnings=(*partition_warnings(subject), *scores.warnings),
    )


def _with_intervals(
    scores: Scores, draws: npt.NDArray[np.uint8], first: npt.NDArray[np.intp], confidence: float
) -> tuple[list[Metric], dict[Key, FloatArray]]:
    """`first`: the row of each case's first image: values of cases are resampled with the weights found there."""
    metrics: list[Metric] = []
    replicates: dict[Key, FloatArray] = {}
    for values, value_draws in ((scores.per_image, draws), (scores.per_case, draws[:, first])):
        if values:
            rounds = resampled_means(np.stack(list(scores.linearised(values).values()), axis=1), value_draws)
            for number, (key, key_values) in enumerate(values.items()):
                replicates[key] = rounds[:, number]
                metrics.append(_mean_metric(key, key_values, rounds[:, number], confidence))
    for statistic in scores.statistics:
        if statistic.resampled:
            in_rounds = statistic.replicates(draws, np.arange(len(draws)))
            replicates |= dict(zip(statistic.keys, in_rounds.T, strict=True))
        for key, value in zip(statistic.keys, statistic.values(once(draws.shape[1])), strict=True):
            ends = interval(value, replicates.get(key, np.array([])), confidence)
            metrics.append(Metric(*key, float(value), *ends, draws.shape[1]))
    return metrics, replicates


def _mean_metric(key: Key, values: FloatArray, rounds: FloatArray, confidence: float) -> Metric:
    value, n_known = mean_of_known(values), int((~np.isnan(values)).sum())
    return Metric(*key, value, *interval(value, rounds, confidence), n_known, len(values) - n_known)
