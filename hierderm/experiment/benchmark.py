"""Benchmarks: tasks on any models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hierderm.artifacts import claim_folder
from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.errors import BenchmarkError
from hierderm.evaluation.subject import case_table
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.experiment.leaderboard import warnings_of
from hierderm.experiment.protocol import Division
from hierderm.experiment.results import BENCHMARK, COMPARISON, Results
from hierderm.experiment.runner import logger, run
from hierderm.experiment.sources import as_model
from hierderm.taxonomy.tree import Taxonomy


def bench(
    models: Mapping[str, Any],
    cases: CaseTable | pd.DataFrame | str | Path | list[CaseTable] | tuple[CaseTable, ...],
    taxonomy: Taxonomy | str | Path,
    *,
    tasks: Sequence[str] = ("core",),
    folder: str | Path,
    config: EvaluationConfig | None = None,
) -> Results:
    """Run tasks on any models, and keep the results in a folder.

    Results that are there for the same model, task, data and settings are kept, so a killed call goes on when it is
    repeated, and a model or a task can be added to a folder, that of a comparison too.

    Args:
        models: Name (letters, digits, '.', '_', '-') and source of each model. A source is anything that
            `hierderm.evaluate` takes: an object with `encode(paths) -> array`, an array, shape (n_images, dim), an
            EmbeddingTable; or the name of one: an .npy file, a folder of embeddings, a model folder, a backbone
            ('hierderm:tiny', 'timm:...', 'hf:...'), '<backbone>@random', or 'colour'. A list or tuple holds trainings
            of one model with other seeds, whose mean is reported.
        cases: As `hierderm.evaluate` takes them: a table, or its CSV or Parquet file; without a `split` column all
            cases are the test. A list or tuple holds the tables of all folds, whose results are combined; '{fold}' in
            the name of a source is then the number of the fold.
        taxonomy: The tree, the id of a shipped one such as 'scin', or a file.
        tasks: Names of tasks or suites (`hierderm bench tasks`).
        folder: Where results are stored, and embeddings of sources that are given by name.
        config: How much work goes into scores and intervals; its own `tasks` are not read.

    Returns:
        All results of the folder; `to_pandas()` is the leaderboard.

    Raises:
        BenchmarkError: A task or a model is not known.
        CaseTableError: Faults of the table.
        EmbeddingError: Embeddings do not fit the table, or their model was trained on another split of it.
        OutputError: The folder holds something else.
    """
    folder = Path(folder)
    if not isinstance(models, Mapping) or not models:
        raise BenchmarkError(f"models must be names with models, {{'mine': model, ...}}, at least one, got {models!r}.")
    if len({name.casefold() for name in models}) < len(models):
        raise BenchmarkError(f"the names of models must differ by more than case, got {list(models)}.")
    chosen = tasks_named(tasks)
    known = [as_model(name, source, folder / "embeddings") for name, source in models.items()]
    tables = [case_table(one, taxonomy) for one in (cases if isinstance(cases, list | tuple) else [cases])]
    folds = [Division(folder, table, fold=number) for number, table in enumerate(tables)]
    claim_folder(folder, BENCHMARK, COMPARISON)
    run(known, [folds], chosen, config or EvaluationConfig(), folder)
    results = Results.open(folder)
    for text in warnings_of(results):
        logger.warning(text)
    return results
