"""Every metric, one entry each: what it is called, which way is better, whether it is a headline.

A retrieval metric also names the function that defines it. Values, effects of the gallery, intervals and tables follow
from the entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from hierderm import columns as c
from hierderm.errors import BenchmarkError
from hierderm.evaluation.metrics import hierarchy, terms
from hierderm.evaluation.metrics.ranking import K, Rankings
from hierderm.types import FloatArray

Direction = Literal["higher", "lower", "none"]
Key = tuple[str, str]  # level name, metric name
TREE = "tree"  # the level of metrics that look at the whole tree


@dataclass(frozen=True)
class MetricEntry:
    """One metric.

    Attributes:
        name: In keys and files.
        title: In tables.
        direction: 'higher' or 'lower'; 'none' where neither is a quality by itself.
        headlines: Levels at which it is a headline of reports.
        terms: Of a retrieval metric of each level: see `hierderm.evaluation.metrics.terms`.
        first: With `terms`: how many of a query's first relevant items can have a term that is not 0; by default all.
        rankings: Of a retrieval metric of the whole tree: the value of each query from a block of rankings.
        changes: With `rankings`: its change when items are left out, see `hierderm.evaluation.metrics.hierarchy`;
            without it intervals do not allow for another gallery.
    """

    name: str
    title: str
    direction: Direction = "higher"
    headlines: tuple[str, ...] = ()
    terms: terms.Terms | None = None
    first: int | None = None
    rankings: Callable[[Rankings], FloatArray] | None = None
    changes: hierarchy.Changes | None = None


ENDS = ("coarse", "fine")
_ENTRIES = (
    MetricEntry("recall_at_1", "Recall@1", headlines=ENDS, terms=partial(terms.recall_at, k=1), first=1),
    MetricEntry(f"recall_at_{K}", f"Recall@{K}", terms=partial(terms.recall_at, k=K), first=1),
    MetricEntry(f"precision_at_{K}", f"Precision@{K}", terms=partial(terms.precision_at, k=K), first=K),
    MetricEntry("r_precision", "R-precision", terms=terms.r_precision),
    MetricEntry("map_at_r", "MAP@R", headlines=ENDS, terms=terms.map_at_r),
    MetricEntry("mrr", "Mean reciprocal rank", terms=terms.reciprocal_rank, first=1),
    MetricEntry("knn_accuracy", "5-NN accuracy"),
    MetricEntry("case_recall_at_1_best", "Recall@1 of cases, by best pair"),
    MetricEntry("case_recall_at_1_mean", "Recall@1 of cases, by mean"),
    MetricEntry("case_map_at_r_best", "MAP@R of cases, by best pair"),
    MetricEntry("case_map_at_r_mean", "MAP@R of cases, by mean"),
    *(
        MetricEntry(f"recall_at_1_of_worst_{column}", f"Recall@1 of the worst group by {column.replace('_', ' ')}")
        for column in (c.FITZPATRICK, c.MONK, c.SKIN_TONE, c.BODY_SITE, c.SOURCE)
    ),
    MetricEntry("ndcg", "nDCG", rankings=hierarchy.ndcg, changes=hierarchy.ndcg_changes),
    MetricEntry(
        "hap", "Hierarchical AP", rankings=hierarchy.hierarchical_average_precision, changes=hierarchy.hap_changes
    ),
    MetricEntry("asi", "Average set intersection", rankings=hierarchy.average_set_intersection),
    MetricEntry(
        f"lca_height_at_{K}", f"Height of common ancestor, top {K}", "lower",
        rankings=partial(hierarchy.mean_lca_height, k=K),
    ),
    MetricEntry("mistake_severity", "Severity of wrong nearest", "lower", rankings=hierarchy.mistake_severity),
    MetricEntry("expected_relevance_at_1", "Expected relevance, nearest"),
    MetricEntry(f"expected_relevance_at_{K}", f"Expected relevance, top {K}"),
    MetricEntry("nearest_is_plausible", "Nearest is plausible"),
    MetricEntry("top1_accuracy", "Top-1 accuracy"),
    MetricEntry("top3_accuracy", "Top-3 accuracy"),
    MetricEntry("balanced_accuracy", "Balanced accuracy"),
    MetricEntry("macro_f1", "Macro F1"),
    MetricEntry("crm_accuracy", "Top-1 accuracy, CRM decoding"),
    MetricEntry("top1_is_plausible", "Top 1 is plausible"),
    MetricEntry("top3_has_plausible", "Top 3 has a plausible one"),
    MetricEntry("hierarchical_f1", "Hierarchical F1 of top 1"),
    MetricEntry("optimal_f1", "Hierarchical F1, optimal decoding"),
    MetricEntry("optimal_nodes", "Nodes of the optimal decoding", "none"),
    MetricEntry("hops", "HOPS"),
    MetricEntry("hops_at_5", "HOPS@5"),
    MetricEntry("top1_height", "Height of common ancestor, top 1", "lower"),
    MetricEntry("top1_severity", "Severity of wrong top 1", "lower"),
    MetricEntry("crm_height", "Height of common ancestor, CRM decoding", "lower"),
    MetricEntry("crm_severity", "Severity of wrong CRM decoding", "lower"),
    MetricEntry("brier", "Brier score", "lower"),
    MetricEntry("ece", "Expected calibration error", "lower"),
    MetricEntry("ece_scaled", "Expected calibration error, temperature-scaled", "lower"),
    MetricEntry("aurc", "Area under risk-coverage", "lower"),
    MetricEntry("conformal_coverage", "Coverage of conformal sets", "none"),  # it has a target, not a best
    MetricEntry("conformal_size", "Size of conformal sets", "lower"),
    MetricEntry("conformal_nodes", "Nodes of the conformal set", "lower"),
    MetricEntry("answer_rate", "Share answered", "none"),
    MetricEntry("answer_error", "Error of answers", "lower"),
    MetricEntry("answer_depth", "Depth of answers"),
    MetricEntry("answer_refused", "Share refused as unlike the index", "none"),
    MetricEntry("answer_precision", "Hierarchical precision of answers"),
    MetricEntry("answer_recall", "Hierarchical recall of answers"),
    MetricEntry("answer_f1", "Hierarchical F1 of answers"),
    MetricEntry("answer_precision_macro", "Hierarchical precision of answers, macro"),
    MetricEntry("answer_recall_macro", "Hierarchical recall of answers, macro"),
    MetricEntry("answer_f1_macro", "Hierarchical F1 of answers, macro"),
    MetricEntry("ami", "AMI", headlines=ENDS),
    MetricEntry("nmi", "NMI"),
    MetricEntry("ari", "ARI"),
    MetricEntry("homogeneity", "Homogeneity"),
    MetricEntry("completeness", "Completeness"),
    MetricEntry("v_measure", "V-measure"),
    MetricEntry("purity", "Purity"),
    MetricEntry("purity_unweighted", "Purity, unweighted"),
    MetricEntry("agglomerative_ami", "AMI, agglomerative"),
    MetricEntry("agglomerative_purity", "Purity, agglomerative"),
    MetricEntry("label_silhouette", "Silhouette of labels"),
    MetricEntry("cluster_silhouette", "Silhouette of clusters", "none"),  # tight clusters come from collapse, too
    MetricEntry("effective_rank", "Effective rank", "none"),
    MetricEntry("mean_cosine", "Mean cosine", "none"),
    MetricEntry("train_knn_accuracy", "5-NN accuracy, training cases"),
    MetricEntry("linear_probe_accuracy", "Linear probe accuracy"),
    MetricEntry("linear_probe_balanced_accuracy", "Linear probe balanced accuracy"),
    MetricEntry("few_shot_1", "Few-shot accuracy, 1 image"),
    MetricEntry("few_shot_5", "Few-shot accuracy, 5 images"),
    MetricEntry("few_shot_10", "Few-shot accuracy, 10 images"),
)  # fmt: skip
METRICS: dict[str, MetricEntry] = {entry.name: entry for entry in _ENTRIES}
HEADLINES: tuple[Key, ...] = tuple(
    sorted((level, entry.name) for entry in _ENTRIES for level in entry.headlines)  # coarse first
)


INDEX_PREFIXES = {"index_": "index", "exact_": "exact", "loss_": "exact - index"}  # of its values, in names and titles
_OF_FIRST = {"recall": "Recall", "precision": "Precision", "map": "MAP", "true_neighbours": "True neighbours"}


def add_metric(entry: MetricEntry) -> None:
    """Make a metric known by its name.

    Args:
        entry: Its name, title and direction.

    Raises:
        BenchmarkError: The name is taken, or of several words.
    """
    if not entry.name.isidentifier():  # results are stored as 'LEVEL METRIC', and tables have 'LEVEL METRIC low'
        raise BenchmarkError(f"a metric's name must be of letters, digits and '_', got '{entry.name}'.")
    if entry.name in METRICS:
        raise BenchmarkError(f"there is a metric '{entry.name}' already; give yours another name.")
    METRICS[entry.name] = entry


def level_metrics() -> dict[str, terms.LevelMetric]:
    """The retrieval metrics of each level, by name."""
    return {name: terms.LevelMetric(entry.terms, entry.first) for name, entry in METRICS.items() if entry.terms}


def tree_metrics() -> dict[str, Callable[[Rankings], FloatArray]]:
    """The retrieval metrics of the whole tree, by name."""
    return {name: entry.rankings for name, entry in METRICS.items() if entry.rankings}


def tree_changes() -> dict[str, hierarchy.Changes]:
    """Those of them whose change is known when an item is left out."""
    return {name: entry.changes for name, entry in METRICS.items() if entry.changes}


def direction(name: str) -> Direction:
    """Whether a higher or a lower value of a metric is better, or 'none' where neither is."""
    return _entry(name).direction


def metric_name(level: str, name: str) -> str:
    """'fine', 'map_at_r' as 'fine MAP@R'."""
    return f"{level} {_entry(name).title}"


def find_entry(name: str) -> MetricEntry | None:
    """The entry of a metric; those of the first k, and those of an index, are derived from their names."""
    if name in METRICS:
        return METRICS[name]
    for prefix, suffix in INDEX_PREFIXES.items():
        if name.startswith(prefix):
            base = find_entry(name.removeprefix(prefix))
            turned: dict[Direction, Direction] = {"higher": "lower", "lower": "higher", "none": "none"}
            return base and MetricEntry(
                name, f"{base.title}, {suffix}", turned[base.direction] if prefix == "loss_" else base.direction
            )
    found = re.fullmatch(r"(recall|precision|map|true_neighbours)_at_([1-9]\d*)", name)
    return MetricEntry(name, f"{_OF_FIRST[found[1]]}@{found[2]}") if found else None


def _entry(name: str) -> MetricEntry:
    """Stored results may hold metrics of tasks that are not registered now: these are shown, but not ranked."""
    return find_entry(name) or MetricEntry(name, name, "none")
