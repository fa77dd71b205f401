"""Comparisons of models on the same cases: one split, or every fold and several seeds; and what a wrong split hides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import claim_folder, write_json
from hierderm.config.loading import entries_of, model_config, with_overrides
from hierderm.config.settings import Comparison, Config, EvaluationConfig, ModelEntry
from hierderm.data.splits import SplitReport
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Provenance
from hierderm.errors import ConfigError
from hierderm.evaluation.catalogue import HEADLINES
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.combine import combine_folds, combine_repeats, combine_seeds
from hierderm.experiment.run import RUN, environment, evaluate_test, prepare, train
from hierderm.report.rows import Row
from hierderm.taxonomy.file import write_taxonomy

if TYPE_CHECKING:
    from hierderm.training.features import FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One division of the cases, with the folder of all that is made on it.

    `store`: the features that all folds share. `first_seed`: added to `training.seed`.
    """

    comparison: Comparison
    folder: Path
    store: FeatureStore
    table: CaseTable
    split_report: SplitReport | None
    first_seed: int = 0


def compare(comparison: Comparison, folder: Path) -> Path:
    """Train and evaluate every model of a comparison and write the report.

    On one split, or with `protocol.every_fold` on each fold of a k-fold split, of `protocol.repeats` such splits; with
    `protocol.seeds` each model whose method reads a seed is trained as many times. Finished parts are kept in the
    folder and not done again.

    Args:
        comparison: The models and what they share.
        folder: Where runs and report are written.

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
    claim_folder(folder, RUN)
    divisions = _divisions(comparison, folder)
    rows = [_row_over_divisions(divisions, entry) for entry in comparison.models]
    logger.info("Writing the report ...")
    first = divisions[0][0]
    return write_report(comparison, first.table, first.split_report, rows, folder, environment())


def _fold(comparison: Comparison, folder: Path, store: Path, first_seed: int = 0) -> Fold:
    from hierderm.training.features import FeatureStore

    table, report = prepare(comparison.data, comparison.split, folder)
    return Fold(comparison, folder, FeatureStore(store / "features"), table, report, first_seed)


def _divisions(comparison: Comparison, folder: Path) -> list[list[Fold]]:
    """The folds of each repeat; the one split alone without `protocol.every_fold`."""
    if not comparison.protocol.every_fold:
        return [[_fold(comparison, folder, folder)]]
    return [_folds(comparison, repeat, folder) for repeat in range(comparison.protocol.repeats)]


def _folds(comparison: Comparison, repeat: int, folder: Path) -> list[Fold]:
    folds, n_folds = [], comparison.split.folds
    for number in range(n_folds):
        name = f"fold-{number}" if repeat == 0 else f"fold-{number}@{repeat}"
        logger.info("Fold %d of %d%s:", number + 1, n_folds, f", repeat {repeat + 1}" if repeat else "")
        changes = {"split.seed": comparison.split.seed + repeat, "split.fold": number, "split.reuse": False}
        own = with_overrides(comparison, changes)
        folds.append(_fold(own, folder / name, folder, repeat * comparison.protocol.seeds))
    return folds


def _row_over_divisions(divisions: Sequence[Sequence[Fold]], entry: ModelEntry) -> Row:
    """All repeats, folds and seeds of one model as one row; its images and its history are those of the first."""
    comparison = divisions[0][0].comparison
    confidence, bootstrap_seed = comparison.evaluation.confidence, comparison.evaluation.seed
    has_seed = hasattr(model_config(comparison, entry).training, "seed")
    first: Row | None = None  # only its embeddings are kept
    repeats, seconds = [], []
    for folds in divisions:
        fold_evaluations = []
        for fold in folds:
            rows = [_row(fold, entry, seed) for seed in range(comparison.protocol.seeds if has_seed else 1)]
            first = first or rows[0]
            seconds += [row.seconds for row in rows]
            evaluations = [row.evaluation for row in rows]
            fold_evaluations.append(combine_seeds(evaluations, confidence, bootstrap_seed + len(seconds)))
        repeats.append(combine_folds(fold_evaluations, confidence))
    assert first is not None
    evaluation = combine_repeats(repeats, confidence, bootstrap_seed)
    return replace(first, evaluation=evaluation, seconds=float(np.mean(seconds)), n_runs=len(seconds))


def _row(fold: Fold, entry: ModelEntry, seed: int) -> Row:
    config, table = _with_seed(model_config(fold.comparison, entry), fold.first_seed + seed), fold.table
    title = entry.name if seed == 0 else f"{entry.name}@{seed}"
    run = train(config, table, fold.folder / "models" / title, fold.store)
    embedded = run.embeddings(fold.store)
    logger.info("%s: evaluating ...", title)
    evaluation = evaluate_test(config.evaluation, embedded, table, entry.name)
    for warning in evaluation.warnings:
        logger.warning("%s: %s", title, warning)
    write_json(run.folder / "evaluation.json", evaluation.to_dict())
    test = embedded.select(np.isin(embedded.frame[c.IMAGE_ID], table.part(c.TEST).frame[c.IMAGE_ID]))
    return Row(entry, config, evaluation, test, run.history, run.chosen, run.seconds)


def _with_seed(config: Config, more: int) -> Config:
    seed = getattr(config.training, "seed", None)
    return config if seed is None else with_overrides(config, {"training.seed": seed + more})


# --- what a split by image would have claimed -----------------------------------------------------------------------


def inflation(comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """The same models evaluated in three ways, a row for each model and headline metric.

    `by_case`: as hierderm does; `own_case_allowed`: the same embeddings, but other images of the query's case may be
    its neighbours; `by_image`: trained and tested on a split by image, where images of one case are on both sides and
    look-alikes are not kept together. The last has other test images, so its difference is not paired.
    """
    claim_folder(folder, RUN)
    by_case = _fold(comparison, folder / "by-case", folder / "by-case")
    by_image = _split_by_image(comparison, by_case.table, folder)
    rows = []
    for entry in entries_of(comparison):
        honest, careless = _row(by_case, entry, 0), _row(by_image, entry, 0)
        allowed = _own_case_allowed(comparison.evaluation, by_case.table, honest.test, entry.name)
        rows += [
            {
                "model": entry.name,
                "level": level,
                "name": name,
                "by_case": honest.evaluation[level, name].to_dict(),
                "own_case_allowed": allowed[level, name].to_dict(),
                "by_image": careless.evaluation[level, name].to_dict(),
            }
            for level, name in (*HEADLINES, ("coarse", "top1_accuracy"), ("fine", "top1_accuracy"))
            if all(e.get((level, name)) for e in (honest.evaluation, allowed, careless.evaluation))
        ]
    write_json(folder / "inflation.json", rows)
    return rows


def _split_by_image(comparison: Comparison, table: CaseTable, folder: Path) -> Fold:
    source = folder / "every-image-a-case.csv"
    write_taxonomy(table.taxonomy, folder / "taxonomy.csv")
    _every_image_a_case(table).write(source)
    settings = {
        "data.cases": str(source),
        "data.taxonomy": str(folder / "taxonomy.csv"),
        "data.image_root": "",
        "split.reuse": False,
        "split.near_duplicates": -1,
    }
    return _fold(with_overrides(comparison, settings), folder / "by-image", folder / "by-image")


def _every_image_a_case(table: CaseTable) -> CaseTable:
    return replace(table, frame=table.frame.assign(**{c.CASE_ID: table.frame[c.IMAGE_ID]}))


def _own_case_allowed(settings: EvaluationConfig, table: CaseTable, test: EmbeddingTable, name: str) -> Evaluation:
    every = _every_image_a_case(table.part(c.TEST))
    unbound = replace(test, provenance=Provenance())  # its split hash is that of the cases
    return evaluate_test(settings, unbound, every, name)
