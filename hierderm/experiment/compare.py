"""Comparisons: models are trained on the same divisions of the cases, evaluated, and reported."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import claim_folder
from hierderm.config.loading import entries_of, model_config, with_overrides
from hierderm.config.settings import Comparison, Config, ModelEntry
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import ConfigError, OutputError
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.experiment.protocol import Division, Divisions, divide
from hierderm.experiment.run import RUN, Run, environment, train
from hierderm.experiment.runner import Model, Source, logger, run
from hierderm.experiment.sources import version
from hierderm.report.page import GENERATOR
from hierderm.report.rows import Row

if TYPE_CHECKING:
    from hierderm.training.features import FeatureStore


def compare(comparison: Comparison, folder: Path | str) -> Path:
    """Train and evaluate every model of a comparison and write the report.

    On one split, or with `protocol.every_fold` on each fold of a k-fold split, of `protocol.repeats` such splits; with
    `protocol.seeds` each model whose method reads a seed is trained as many times. Finished parts are kept in the
    folder and not done again; `hierderm bench` reads the folder, too.

    Args:
        comparison: The models and what they share.
        folder: Where runs, results and report are written.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigError: A comparison without models, or without the metrics its report needs.
    """
    from hierderm.report.comparison import write_report

    if not comparison.models:
        raise ConfigError("a comparison must list its models: [[models]] with name and method, see experiments/.")
    if "retrieval" not in comparison.evaluation.tasks:
        raise ConfigError("a comparison's report needs 'retrieval' among evaluation.tasks; add it.")
    folder = Path(folder)
    claim_folder(folder, RUN)
    page = folder / "report.html"
    if page.is_file() and GENERATOR not in page.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise OutputError(
            f"{page} is not a report of hierderm and would be overwritten. Move it, or choose another --out."
        )
    divisions = divide(comparison.data, comparison.split, comparison.protocol, folder)
    rows = evaluated(comparison, divisions, folder)
    logger.info("Writing the report ...")
    first = divisions[0][0]
    return write_report(comparison, first.table, first.report, rows, folder, environment())


def evaluated(comparison: Comparison, divisions: Divisions, folder: Path) -> list[Row]:
    """Train every model on every division with every seed and run the tasks, with the store in `folder`."""
    from hierderm.training.features import FeatureStore

    entries, features = entries_of(comparison), FeatureStore(folder / "features")  # all divisions share the features
    runs: dict[str, list[Run]] = {entry.name: [] for entry in entries}

    def sources(entry: ModelEntry, division: Division) -> list[Source]:
        found = _train(comparison, entry, division, features)
        runs[entry.name] += found
        embed = [partial(_embeddings, one.folder, features) for one in found]
        return [Source(version(one.folder / "model"), division.table, e) for one, e in zip(found, embed, strict=True)]

    models = [Model(entry.name, partial(sources, entry)) for entry in entries]
    tasks = tasks_named(comparison.evaluation.tasks)
    results = run(models, divisions, tasks, comparison.evaluation, folder)
    first = divisions[0][0]
    rows = []
    for entry in entries:
        own = runs[entry.name]
        embedded = _embeddings(own[0].folder, features)
        test = embedded.select(np.isin(embedded.frame[c.IMAGE_ID], first.table.part(c.TEST).frame[c.IMAGE_ID]))
        config, seconds = _config(comparison, entry, first, 0), float(np.mean([one.seconds for one in own]))
        evaluation = results.joined(entry.name, tasks)
        rows.append(Row(entry, config, evaluation, test, own[0].history, own[0].chosen, own[0].by, seconds, len(own)))
    return rows


def _train(comparison: Comparison, entry: ModelEntry, division: Division, features: FeatureStore) -> list[Run]:
    """The runs of one model on one division: one for each seed, where its method reads a seed."""
    configs = [_config(comparison, entry, division, seed) for seed in range(comparison.protocol.seeds)]
    runs = []
    for seed, config in enumerate(configs if hasattr(configs[0].training, "seed") else configs[:1]):
        place = division.folder / "models" / (entry.name if seed == 0 else f"{entry.name}@{seed}")
        runs.append(train(config, division.table, place, features))
    return runs


def _config(comparison: Comparison, entry: ModelEntry, division: Division, seed: int) -> Config:
    config = replace(model_config(comparison, entry), split=division.split or comparison.split)
    first: int | None = getattr(config.training, "seed", None)
    return config if first is None else with_overrides(config, {"training.seed": first + division.first_seed + seed})


def _embeddings(folder: Path, features: FeatureStore) -> EmbeddingTable:
    """The embeddings of a run's table; the run is opened anew, so that its model is let go."""
    return Run.open(folder).embeddings(features)
