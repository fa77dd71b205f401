"""Retrieval metrics of an index as it is served, beside those of exact search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hierderm import columns as c
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import Aggregation, EmbeddingTable
from hierderm.errors import SearchError
from hierderm.evaluation.catalogue import TREE
from hierderm.evaluation.evaluation import Evaluation, evaluate_subject
from hierderm.evaluation.metrics.classification import set_overlap
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.top_k import LevelValues, count_relevant, top_k_scores, true_neighbours, with_loss
from hierderm.evaluation.partitions import gallery_warnings
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.evaluation.tasks.registry import Task
from hierderm.evaluation.tasks.retrieval_index import exact_sample
from hierderm.progress import Progress
from hierderm.search.case_index import CaseIndex
from hierderm.search.filters import Where, Within
from hierderm.search.gallery import Gallery
from hierderm.search.likeness import Likeness, distances_of
from hierderm.search.query import MAX_IMAGES
from hierderm.search.result import SearchResult
from hierderm.types import FloatArray, IntArray, Mask

TOGETHER = 2048  # query cases at a time


def evaluate_index(
    index: CaseIndex,
    queries: EmbeddingTable | None = None,
    *,
    k: int = 10,
    within: Within | None = None,
    where: Where | None = None,
    aggregation: Aggregation = "best",
    config: EvaluationConfig | None = None,
    name: str = "index",
    progress: bool | None = None,
) -> Evaluation:
    """Evaluate an index as it is served, with its kind and filters, each query's own case left out.

    A query is a case, by its first three images; what it finds are cases, too. Metrics of each level are recall@1,
    recall@k, precision@k, MAP@k and 5-NN accuracy, each as `index_...`, `exact_...` and `loss_...` (exact - index); of
    the tree the share of the true k nearest cases that are found and, where the index is calibrated and no filter
    narrows the search, the share, error and depth of answers, and the share of queries refused as unlike the index.
    Exact values come from a sample of the queries where there are more than 1,000 million pairs of a query and an
    image.

    Args:
        index: The index.
        queries: Embeddings of the query cases by the index's model; None for its own cases.
        k: Nearest cases that are looked at, >= 1.
        within: As in `CaseIndex.search`, and so are `where` and `aggregation`.
        where: See there.
        aggregation: See there.
        config: How much work goes into the intervals. They are of the query cases; the index stays as it is.
        name: Of the result, in tables.
        progress: Show a progress bar; by default in a terminal only.

    Returns:
        The metrics with intervals.

    Raises:
        SearchError: There are no queries, they come from another model, or a filter does not fit the index.
    """
    table = own_cases(index) if queries is None else queries
    if not len(table):
        raise SearchError("an index needs at least one query case to be evaluated, got none.")
    if table.provenance.weights_hash:
        index.require_same_model(table.provenance)
    cases = _cases_of(table, index.gallery)
    options = {"k": k, "within": within, "where": where, "aggregation": aggregation}
    served = _serve(index, cases, np.arange(len(cases)), options, progress)
    exact, chosen = _exactly(index, cases, served, options, progress)
    allowed = index.gallery.allowed(within, where)
    subject = Subject(name, index.taxonomy, config or EvaluationConfig(), cases.table, cases.ids)
    names = [*(level for _, level in subject.levels), TREE]
    tables = zip(names, _values(index, cases, served, exact, chosen, allowed), strict=True)
    scores = {(level, metric): values for level, table in tables for metric, values in table.items()}
    fine = index.gallery.fine_at(allowed)
    about = {"kind": index.about.kind, "effort": index.about.effort, "images": len(index), "cases": index.n_cases}
    details = {"index": about | options | {"images_within_filters": len(fine), "exact_queries": len(chosen)}}
    said = gallery_warnings(subject, fine)
    task = Task("index", "an index as it is served", lambda _: Scores(per_case=scores, details=details, warnings=said))
    return evaluate_subject(subject, [task], progress=progress)


def own_cases(index: CaseIndex) -> EmbeddingTable:
    """The images of an index as queries."""
    return EmbeddingTable(np.asarray(index.vectors), index.frame, index.provenance, looks=index.looks)


@dataclass(frozen=True)
class _Cases:
    """Query cases in the order of their sorted ids. `table`: their first three images; `fine`: their conditions."""

    table: EmbeddingTable
    ids: Any  # (n_cases,), text
    order: IntArray  # rows of the table by case
    starts: IntArray  # of each case in `order`, (n_cases + 1,)
    fine: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, numbers: IntArray) -> list[IntArray]:
        """Rows of the table, of each case."""
        return [self.order[self.starts[number] : self.starts[number + 1]] for number in numbers]

    def refused(self, gallery: Gallery, likeness: Likeness | None, numbers: IntArray, found: SearchResult) -> Mask:
        """Which cases are unlike the index, which has `found` the nearest to each."""
        if likeness is None:
            return np.zeros(len(numbers), dtype=bool)
        known, ids = self.table.looks, self.ids[numbers].tolist()
        own = gallery.case_numbers(ids)
        looks = [
            gallery.look_distance(None if known is None else known[rows], [own[name]] if name in own else [])
            for rows, name in zip(self.rows(numbers), ids, strict=True)
        ]
        return np.asarray(likeness.p_values(distances_of(found.similarity[:, 0], looks)) <= likeness.wanted)

    def search(self, index: CaseIndex, numbers: IntArray, options: Mapping[str, Any]) -> SearchResult:
        spans = self.rows(numbers)
        return index.search(
            self.table.embeddings[np.concatenate(spans)],
            cases=np.repeat(np.arange(len(spans)), [len(span) for span in spans]),
            leave_out=[str(case) for case in self.ids[numbers]],
            **options,
        )


def _cases_of(table: EmbeddingTable, gallery: Gallery) -> _Cases:
    first_three = (table.frame.groupby(c.CASE_ID).cumcount() < MAX_IMAGES).to_numpy()
    if not first_three.all():
        table = table.select(first_three)
    ids, first, number = np.unique(table.case_ids, return_index=True, return_inverse=True)
    starts = np.append(0, np.cumsum(np.bincount(number)))
    fine = gallery.taxonomy.encode(table.frame[c.CONDITION].iloc[first])
    return _Cases(table, ids, np.argsort(number, kind="stable"), starts, fine)


@dataclass(frozen=True)
class _Served:
    """What a search gave.

    `fine`, `cases`: numbers of the conditions and cases found, shape (n_queries, k), -1 where there is none; `answers`:
    by metric, shape (n_queries,), {} without any.
    """

    fine: IntArray
    cases: IntArray
    answers: dict[str, FloatArray]


def _serve(
    index: CaseIndex, cases: _Cases, numbers: IntArray, options: Mapping[str, Any], progress: bool | None
) -> _Served:
    """Search for some of the cases, a part after the other."""
    parts: list[_Served] = []
    what = "Searching" if index.gallery.approximate else "Searching exactly"
    with Progress(what, len(numbers), unit="cases", shown=progress) as bar:
        for start in range(0, len(numbers), TOGETHER):
            some = numbers[start : start + TOGETHER]
            found = cases.search(index, some, options)
            parts.append(_Served(found.fine, found.cases, _answers(index, cases, some, options, found)))
            bar.update(len(some))
    answers = {name: np.concatenate([part.answers[name] for part in parts]) for name in parts[0].answers}
    fine, near = (np.concatenate([getattr(part, name) for part in parts]) for name in ("fine", "cases"))
    return _Served(fine, near, answers)


def _exactly(
    index: CaseIndex, cases: _Cases, served: _Served, options: Mapping[str, Any], progress: bool | None
) -> tuple[_Served, IntArray]:
    """What exact search gives, and for which of the cases."""
    if not index.gallery.approximate:
        return served, np.arange(len(cases))
    flat = replace(index, gallery=index.gallery.exact())
    chosen = exact_sample(len(cases), len(index), 0)
    return _serve(flat, cases, chosen, options, progress), chosen


def _answers(
    index: CaseIndex, cases: _Cases, numbers: IntArray, options: Mapping[str, Any], found: SearchResult
) -> dict[str, FloatArray]:
    """Share, error (nan where there is no answer) and depth of the answers as `CaseFinder` gives them."""
    calibration = index.calibration
    if calibration is None or options["within"] or options["where"]:
        return {}
    if (calibration.k, calibration.aggregation) != (options["k"], options["aggregation"]):
        found = cases.search(index, numbers, {"k": calibration.k, "aggregation": calibration.aggregation})
    tree = index.taxonomy
    given = calibration.rule.apply(calibration.shares(found), tree)
    refused = cases.refused(index.gallery, calibration.likeness, numbers, found)
    answered = (given.level >= 0) & ~np.isin(given.level, index.gallery.levels_of_one_node) & ~refused
    answered &= (found.rows >= 0).any(axis=1)
    common, depth = set_overlap(cases.fine[numbers], given.node, given.level, tree)
    return {
        "answer_rate": answered.astype(np.float64),
        "answer_error": np.where(answered, (common < depth).astype(np.float64), np.nan),
        "answer_depth": np.where(answered, depth, 0).astype(np.float64),
        "answer_refused": refused.astype(np.float64),
    }


def _values(
    index: CaseIndex, cases: _Cases, served: _Served, exact: _Served, chosen: IntArray, allowed: IntArray | None
) -> LevelValues:
    """The values of each query case: a table a level, coarse first, and one of the tree."""
    gallery, tree_labels = index.gallery, index.taxonomy.ancestors.T  # (n_levels, n_fine)
    labels, fine = tree_labels[:, cases.fine], gallery.fine_at(allowed)
    gallery_cases = gallery.frame_at(allowed)[c.CASE_ID].astype(str).to_numpy(dtype=str)
    nothing = np.empty((max(len(fine), len(cases)), 0))
    n_relevant = count_relevant(
        Labelled(nothing[: len(cases)], labels, cases.ids),
        Labelled(nothing[: len(fine)], tree_labels[:, fine], gallery_cases),
        of_cases=True,
    )
    found = top_k_scores(served.fine, labels, tree_labels, n_relevant)
    true = top_k_scores(exact.fine, labels[:, chosen], tree_labels, n_relevant[:, chosen])
    (tree,) = with_loss([served.answers], [exact.answers], chosen)
    tree[f"index_true_neighbours_at_{served.cases.shape[1]}"] = true_neighbours(served.cases, exact.cases, chosen)
    return [*with_loss(found, true, chosen), tree]
