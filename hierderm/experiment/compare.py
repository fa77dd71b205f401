"""Comparisons: models are trained on the same divisions of the cases, evaluated, and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import FIGURE, holds
from hierderm.config.describe import reads
from hierderm.config.loading import entries_of, model_config, with_overrides
from hierderm.config.settings import Comparison, Config, ModelEntry
from hierderm.embeddings import KIND, EmbeddingTable
from hierderm.errors import ConfigError, OutputError
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.experiment.parallel import at_once, processes_for
from hierderm.experiment.protocol import Division, Divisions, divide
from hierderm.experiment.results import COMPARISON, Results, result_path
from hierderm.experiment.run import Run, environment, train
from hierderm.experiment.runner import Model, Source, logger, run
from hierderm.experiment.sources import version
from hierderm.files import write_atomically
from hierderm.progress import Progress
from hierderm.report.page import is_ours
from hierderm.report.pdf import working_browser
from hierderm.report.rows import Row
from hierderm.report.words import comparison_warnings

if TYPE_CHECKING:
    from hierderm.training.features import FeatureStore


def compare(comparison: Comparison, folder: Path | str, *, pdf: bool = False) -> Path:
    """Train and evaluate every model of a comparison and write the report.

    On one split, or with `protocol.every_fold` on each fold of a k-fold split, of `protocol.repeats` such splits; with
    `protocol.seeds` each model that reads a seed is trained as many times. Finished parts are kept in the
    folder and not done again; `hierderm bench` reads the folder, too.

    Args:
        comparison: The models and what they share.
        folder: Where runs, results and report are written.
        pdf: Print the first screen of the report as `report.pdf`, too, by a browser of this machine.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigError: A comparison without models, or without the metrics its report needs; or there is no browser.
        OutputError: The folder holds something else, or the browser does not print.
    """
    from hierderm.report.comparison import write_report

    browser = working_browser() if pdf else ""  # before anything slow

    if not comparison.models:
        raise ConfigError(
            "a comparison must list its models: [[models]] with name and method, as the shipped 'three_way' does."
        )
    if "retrieval" not in comparison.evaluation.tasks:
        raise ConfigError("a comparison's report needs 'retrieval' among evaluation.tasks; add it.")
    folder = Path(folder)
    _require_ours(folder / "report.html", *([folder / "report.pdf"] if pdf else []))
    divisions = divide(comparison.data, comparison.split, comparison.protocol, folder, COMPARISON)
    rows = evaluated(comparison, divisions, folder)
    for entry, row in zip(entries_of(comparison), rows, strict=True):
        _show_in_card(_places(comparison, entry, divisions)[0] / "model" / FIGURE, rows[0], row)
    first = divisions[0][0]
    return write_report(comparison, first.table, first.report, rows, folder, environment(), browser)


def _require_ours(*reports: Path) -> None:
    """OutputError where something else lies in the place of a report."""
    for path in reports:
        if path.is_file() and not is_ours(path.read_bytes()):
            raise OutputError(
                f"{path} is not a report of hierderm and would be overwritten. Move it, or choose another --out."
            )


def _show_in_card(figure: Path, first: Row, row: Row) -> None:
    """The values of a model, beside those of the first, in place of the figure of its card, if nobody has changed that.

    Of a model that was trained several times, the values are not of one model folder, whose card stays.
    """
    from hierderm.plots import headline_keys, png, scores

    evaluations = [first.evaluation, *([] if row is first else [row.evaluation])]
    if row.n_runs == 1 and headline_keys(evaluations) and figure.is_file() and is_ours(figure.read_bytes()):
        write_atomically(figure, png(scores(evaluations)))


def evaluated(comparison: Comparison, divisions: Divisions, folder: Path) -> list[Row]:
    """Train every model on every division with every seed and run the tasks, with the store in `folder`."""
    entries, tasks = entries_of(comparison), tasks_named(comparison.evaluation.tasks)
    make_models(comparison, divisions, folder)
    results, first = Results.open(folder), divisions[0][0]
    test_images = first.table.part(c.TEST).frame[c.IMAGE_ID]
    rows = []
    for entry in entries:
        own = [Run.open(place) for place in _places(comparison, entry, divisions)]
        embedded = own[0].embeddings()
        test = embedded.select(np.isin(embedded.frame[c.IMAGE_ID], test_images))
        config, seconds = _config(comparison, entry, first, 0), float(np.mean([one.seconds for one in own]))
        evaluation = results.joined(entry.name, tasks)
        rows.append(Row(entry, config, evaluation, test, own[0].history, own[0].chosen, own[0].by, seconds, len(own)))
    for text in comparison_warnings([row.evaluation for row in rows]):
        logger.warning(text)
    return rows


def make_models(comparison: Comparison, divisions: Divisions, folder: Path) -> None:
    """Train and evaluate what is left, several models on frozen features at once where that is worth it."""
    entries = entries_of(comparison)
    works = {entry.name: partial(_make, comparison, entry, divisions, folder) for entry in entries}
    left = [entry for entry in entries if not _seems_made(comparison, entry, divisions, folder)]
    for entry in entries:
        if entry not in left:
            works.pop(entry.name)()  # quick, unless its data or settings have changed
    if not left:
        return
    from hierderm.training.choosing import require_levels  # whose import takes seconds

    settings = {f"model '{entry.name}': training": model_config(comparison, entry).training for entry in left}
    require_levels(settings, divisions[0][0].table.taxonomy)
    n_fits = sum(len(_places(comparison, entry, divisions)) for entry in left)
    n_tasks, n_images = len(left) * len(tasks_named(comparison.evaluation.tasks)), len(divisions[0][0].table)
    logger.info("To do: %d models, %d fits, %d tasks, on %d images.", len(left), n_fits, n_tasks, n_images)
    frozen = _embed_first(comparison, left, divisions, folder)
    n_processes = processes_for(len(frozen), folder / "features")
    apart = {name: works.pop(name) for name in frozen} if n_processes > 1 else {}
    if apart:
        logger.info("%d models on frozen features, %d at once ...", len(apart), n_processes)
    with Progress("Comparing", len(left), unit="models") as progress:
        for _ in chain(at_once(apart, n_processes), at_once(works, 1)):
            progress.update()
            if progress.done == 1:
                logger.info("%s", progress)


def _seems_made(comparison: Comparison, entry: ModelEntry, divisions: Divisions, folder: Path) -> bool:
    """Whether all runs and results of a model are there, for whatever data and settings."""
    results = [result_path(folder, entry.name, task.name) for task in tasks_named(comparison.evaluation.tasks)]
    runs = [place / "finished.json" for place in _places(comparison, entry, divisions)]
    return all(file.is_file() for file in (*runs, *results))


def _make(comparison: Comparison, entry: ModelEntry, divisions: Divisions, folder: Path) -> None:
    """Train one model on every division with every seed, and run the tasks."""
    places = _places(comparison, entry, divisions)
    done = all((place / "finished.json").is_file() and holds(place / "embeddings", KIND) for place in places)
    features = None if done else _features(folder)  # whose import takes seconds

    def sources(division: Division) -> list[Source]:
        runs = [
            train(config, division.table, place, features) for config, place in _trainings(comparison, entry, division)
        ]
        return [
            Source(version(one.folder / "model"), division.table, partial(_embeddings, one.folder, features))
            for one in runs
        ]

    tasks = tasks_named(comparison.evaluation.tasks)
    run([Model(entry.name, sources)], divisions, tasks, comparison.evaluation, folder)


def _features(folder: Path) -> FeatureStore:
    """The store that all models and divisions share."""
    from hierderm.training.features import FeatureStore

    return FeatureStore(folder / "features")


def _embed_first(
    comparison: Comparison, entries: Sequence[ModelEntry], divisions: Divisions, folder: Path
) -> list[str]:
    """Cache what models on frozen features share, with all cores, and give the names of these models.

    Features of all layers come first: they hold the output, too.
    """
    from hierderm.training.fit import cache_features, is_frozen

    frozen = [entry for entry in entries if is_frozen(model_config(comparison, entry).training)]
    wanted: dict[str, tuple[Config, Division]] = {}
    for division in (fold for folds in divisions for fold in folds):
        for entry in frozen:
            for config, _ in _trainings(comparison, entry, division):
                read = [getattr(config.training, name, None) for name in ("features", "views", "augmentation", "seed")]
                wanted.setdefault(repr([read, division.folder]), (config, division))
    for config, division in sorted(wanted.values(), key=lambda one: "layers" not in repr(one[0].training)):
        cache_features(config.training, config.backbone, division.table, _features(folder))
    return [entry.name for entry in frozen]


def _trainings(comparison: Comparison, entry: ModelEntry, division: Division) -> list[tuple[Config, Path]]:
    """Settings and folder of each run of a model on a division: one for each seed, where it reads a seed."""
    configs = [_config(comparison, entry, division, seed) for seed in range(comparison.protocol.seeds)]
    configs = configs if reads(configs[0], "training.seed") else configs[:1]
    names = [entry.name if seed == 0 else f"{entry.name}@{seed}" for seed in range(len(configs))]
    return [(config, division.folder / "models" / name) for config, name in zip(configs, names, strict=True)]


def _places(comparison: Comparison, entry: ModelEntry, divisions: Divisions) -> list[Path]:
    """The folders of all runs of one model."""
    return [place for folds in divisions for fold in folds for _, place in _trainings(comparison, entry, fold)]


def _config(comparison: Comparison, entry: ModelEntry, division: Division, seed: int) -> Config:
    config = replace(model_config(comparison, entry), split=division.split or comparison.split)
    if not reads(config, "training.seed"):
        return config
    first = int(getattr(config.training, "seed", 0))
    return with_overrides(config, {"training.seed": first + division.first_seed + seed})


def _embeddings(folder: Path, features: FeatureStore | None) -> EmbeddingTable:
    """The embeddings of a run's table; the run is opened anew, so that its model is let go."""
    return Run.open(folder).embeddings(features)
