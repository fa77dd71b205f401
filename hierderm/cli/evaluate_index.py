"""What `hierderm evaluate --index` asks an index, and how it shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierderm.cli.output import show_table, value_with_interval
from hierderm.cli.settings import one_path, require_read
from hierderm.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from hierderm.config.settings import EvaluationConfig, ForwardEngine
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.evaluation import Evaluation
    from hierderm.search.case_index import CaseIndex
    from hierderm.types import Mask


def config_of(settings: dict[str, Any], index: Path | str | None) -> EvaluationConfig:
    """The settings of an evaluation; of an index, which has a task of its own, ConfigError for those of other tasks."""
    from hierderm.config.describe import described
    from hierderm.config.loading import load_config

    if index is not None:
        by_task = [row.name for row in described() if row.condition.startswith("evaluation.tasks")]
        require_read("evaluate --index", settings, ["evaluation.tasks", *by_task], "An index has its own task.")
    return load_config(None, settings).evaluation


def queries_of(
    place: str, words: list[str], cases: Path | None, splits: str, model: str, engine: ForwardEngine
) -> tuple[CaseIndex, EmbeddingTable]:
    """An index, and embeddings of the cases that query it: of a file or folder, by its model, or its own."""
    from hierderm.data.checks import read_cases
    from hierderm.embeddings import EmbeddingTable, embeddings_of
    from hierderm.evaluation.subject import case_table
    from hierderm.search.building import embed_queries
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.evaluation import own_cases

    index = CaseIndex.open(place)
    if not words and cases is not None:
        table = read_cases(cases, index.taxonomy)
        some = table.select(_in_splits(table.frame, splits))
        return index, embed_queries(index, some, model or None, engine=engine)
    if not words:
        found = own_cases(index)
    elif (embeddings := one_path(words, "file or folder of embeddings")).suffix == ".npy":
        if cases is None:
            raise ConfigError("an .npy file needs --cases: the table whose rows its rows belong to.")
        found = embeddings_of(embeddings, case_table(cases, index.taxonomy))
    elif cases is None:
        found = EmbeddingTable.load(embeddings)
    else:
        raise ConfigError("--cases goes with an .npy file or with images; a folder of embeddings has its own table.")
    return index, found.select(_in_splits(found.frame, splits)) if splits else found


def _in_splits(frame: pd.DataFrame, splits: str) -> Mask:
    """Which rows are of some splits, such as 'test,validation'; all for ''."""
    import numpy as np

    from hierderm import columns as c

    wanted = {name.strip() for name in splits.split(",") if name.strip()}
    found = frame[c.SPLIT].to_numpy(dtype=str) if c.SPLIT in frame else np.full(len(frame), "")
    if not wanted <= set(found):
        raise ConfigError(f"--splits must name splits of the queries, got '{splits}'; they have {sorted(set(found))}.")
    return np.isin(found, list(wanted)) if wanted else np.ones(len(frame), dtype=bool)


def print_index_table(evaluation: Evaluation) -> None:
    """A row a metric: through the index, exactly, and the difference."""
    from rich.table import Table

    from hierderm.evaluation.catalogue import metric_name

    about = evaluation.details["index"]
    shown = Table(
        title=f"{evaluation.n_cases} cases query {about['images_within_filters']} of {about['images']} images of "
        f"{evaluation.model} ({about['kind']}), {about['k']} cases each; exact values of {about['exact_queries']}"
    )
    for title in ("metric", "index", "exact", "exact - index"):
        shown.add_column(title, justify="left" if title == "metric" else "right")
    for metric in evaluation.metrics:
        if metric.name.startswith("index_"):
            base = metric.name.removeprefix("index_")
            others = [evaluation.get((metric.level, prefix + base)) for prefix in ("exact_", "loss_")]
            cells = ["" if other is None else value_with_interval(other).strip() for other in (metric, *others)]
            shown.add_row(metric_name(metric.level, metric.name).removesuffix(", index"), *cells)
    show_table(shown, markup=False)
