"""Comparisons of models on the same cases: one split, or every fold and several seeds; and what a wrong split hides."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hierderm import artifacts
from hierderm import columns as c
from hierderm.artifacts import holds, write_json
from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config, ModelEntry
from hierderm.data.splits import SplitReport
from hierderm.data.table import CaseTable
from hierderm.embeddings import KIND, EmbeddingTable, Provenance, unit_length
from hierderm.errors import ConfigError
from hierderm.evaluation.catalogue import HEADLINES
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.combine import combine_folds, combine_repeats, combine_seeds
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.run import (
    RUN,
    Say,
    Trained,
    cached_features,
    cached_views,
    claim_folder,
    embed_run,
    environment,
    evaluate_test,
    feature_widths,
    is_frozen,
    prepare_cases,
    silent,
    train_run,
)
from hierderm.report.rows import Row
from hierderm.taxonomy.file import write_taxonomy


@dataclass(frozen=True)
class Fold:
    """One division of the cases, with the folder of all that is made on it. `features`: where all folds keep theirs."""

    config: Config
    folder: Path
    features: Path
    table: CaseTable
    split_report: SplitReport | None


def compare(config: Config, folder: Path, say: Say = silent) -> Path:
    """Train and evaluate every model of `config.models` and write the report; returns `report.html`.

    On one split, or with `protocol.every_fold` on each fold of a k-fold split, of `protocol.repeats` such splits; with
    `protocol.seeds` each model that is trained is trained as many times. Finished parts are kept in `folder` and not
    done again.
    """
    from hierderm.report.comparison import write_report

    if len(config.models) < 1:
        raise ConfigError("a comparison must list its models: [[models]] with name and method, see experiments/.")
    if "retrieval" not in config.evaluation.tasks:
        raise ConfigError("a comparison's report needs 'retrieval' among evaluation.tasks; add it.")
    for entry in config.models:
        own_config(config, entry)  # faults show before anything runs
    artifacts.claim_folder(folder, RUN)
    divisions = _divisions(config, folder, say)
    rows = [_row_over_divisions(divisions, entry, say) for entry in config.models]
    say("Writing the report ...")
    first = divisions[0][0]
    return write_report(config, first.table, first.split_report, rows, folder, environment())


def _divisions(config: Config, folder: Path, say: Say) -> list[list[Fold]]:
    """The folds of each repeat; the one split alone without `protocol.every_fold`."""
    if not config.protocol.every_fold:
        return [[Fold(config, folder, folder, *prepare_cases(config, folder, say))]]
    return [_folds(config, repeat, folder, say) for repeat in range(config.protocol.repeats)]


def _folds(config: Config, repeat: int, folder: Path, say: Say) -> list[Fold]:
    seeds = {
        "split.seed": config.split.seed + repeat,
        "training.seed": config.training.seed + repeat * config.protocol.seeds,
    }
    folds = []
    for number in range(config.split.folds):
        name = f"fold-{number}" if repeat == 0 else f"fold-{number}@{repeat}"
        say(f"Fold {number + 1} of {config.split.folds}{f', repeat {repeat + 1}' if repeat else ''}:")
        own = with_overrides(config, {**seeds, "split.fold": number, "split.reuse": False})
        folds.append(Fold(own, folder / name, folder, *prepare_cases(own, folder / name, say)))
    return folds


def own_config(config: Config, entry: ModelEntry) -> Config:
    """The configuration of one row: the common one with the entry's settings laid over it."""
    common = ("data", "split", "evaluation", "protocol", "models", "name")
    shared = [key for key in entry.set if key.split(".")[0] in common]
    if shared:
        raise ConfigError(
            f"model '{entry.name}' must not change {shared}: all models share data, split and evaluation."
        )
    settings: Mapping[str, Any] = {**entry.set, "name": entry.name, "models": []}
    return with_overrides(config, settings, source=f"model '{entry.name}'")


def _row_over_divisions(divisions: Sequence[Sequence[Fold]], entry: ModelEntry, say: Say) -> Row:
    """All repeats, folds and seeds of one model as one row; its pictures and its history are those of the first."""
    config = divisions[0][0].config
    confidence, luck = config.evaluation.confidence, config.evaluation.seed
    first: Row | None = None  # the others' embeddings are let go
    repeats, seconds = [], []
    for folds in divisions:
        of_folds = []
        for fold in folds:
            rows = [_row(fold, entry, seed, say) for seed in range(_n_seeds(config, entry))]
            first = first or rows[0]
            seconds += [row.seconds for row in rows]
            of_folds.append(combine_seeds([row.evaluation for row in rows], confidence, luck + len(seconds)))
        repeats.append(combine_folds(of_folds, confidence))
    assert first is not None
    evaluation = combine_repeats(repeats, confidence, luck)
    return replace(first, evaluation=evaluation, seconds=float(np.mean(seconds)), n_runs=len(seconds))


def _n_seeds(config: Config, entry: ModelEntry) -> int:
    """The baselines on frozen features have no luck: they are done once."""
    return config.protocol.seeds if entry.method == "train" else 1


def _row(fold: Fold, entry: ModelEntry, seed: int, say: Say) -> Row:
    own, table = own_config(fold.config, entry), fold.table
    own = with_overrides(own, {"training.seed": own.training.seed + seed})
    title = entry.name if seed == 0 else f"{entry.name}@{seed}"
    run_folder = fold.folder / "models" / title
    history, seconds, setting = None, 0.0, ""
    if entry.method == "train":
        say(f"{title}: training ...")
        run = train_run(own, table, run_folder, say, features=fold.features)
        history, seconds = run.history, run.seconds
        embedded = _saved(run_folder / "embeddings", lambda: _embed(own, run, entry.name, fold))
    else:
        say(f"{title}: {entry.method.replace('_', ' ')} on frozen features ...")
        claim_folder(own, table, run_folder)
        embedded = _saved(run_folder / "embeddings", lambda: _frozen_baseline(own, entry, fold))
        finished = json.loads((run_folder / "finished.json").read_text())
        seconds, setting = finished["seconds"], finished["setting"]
    say(f"{title}: evaluating ...")
    evaluation = evaluate_test(own, embedded, table, entry.name)
    for warning in evaluation.warnings:
        say(f"{title}: {warning}")
    write_json(run_folder / "evaluation.json", evaluation.to_dict())
    test = embedded.select(np.isin(embedded.frame[c.IMAGE_ID], table.part(c.TEST).frame[c.IMAGE_ID]))
    return Row(entry, evaluation, test, history, seconds, setting)


def _embed(config: Config, run: Trained, name: str, fold: Fold) -> EmbeddingTable:
    features = None
    if is_frozen(config):
        features = cached_features(config, run.network.backbone, fold.table, fold.features)
    return embed_run(run, fold.table, name=name, features=features)


def _saved(folder: Path, make: Callable[[], EmbeddingTable]) -> EmbeddingTable:
    """Embeddings from `folder`, made and saved there the first time."""
    if not holds(folder, KIND):
        make().save(folder)
    return EmbeddingTable.load(folder)


def _frozen_baseline(config: Config, entry: ModelEntry, fold: Fold) -> EmbeddingTable:
    from hierderm.model.backbone import load_backbone
    from hierderm.training.methods.probes import Probe, fit_probe

    start = time.monotonic()
    if entry.method == "vanilla":
        config = with_overrides(config, {"backbone.features": "output"})
    backbone, table = load_backbone(config.backbone), fold.table
    features = cached_features(config, backbone, table, fold.features)
    provenance = Provenance(
        model=entry.name,
        preprocessing_hash=backbone.preprocessing.hash,
        taxonomy_hash=table.taxonomy.content_hash,
        split_hash=table.split_hash,
    )

    def finish(setting: str) -> None:
        seconds = round(time.monotonic() - start, 1)
        write_json(fold.folder / "models" / entry.name / "finished.json", {"seconds": seconds, "setting": setting})

    if entry.method == "vanilla":
        finish("")
        return EmbeddingTable(unit_length(features), table.frame, provenance)
    views, in_validation = cached_views(config, backbone, table, fold.features), table.splits == c.VALIDATION
    fine, validation = np.tile(table.part(c.TRAIN).fine, len(views)), table.part(c.VALIDATION)

    def score(probe: Probe) -> float:
        return validation_scores(probe.embed(features[in_validation]), validation)[config.training.monitor]

    n_fine = table.taxonomy.size(-1)
    widths = feature_widths(config, backbone)
    probe = fit_probe(entry.method, np.concatenate(views), fine, n_fine, score, widths.values())
    kind = next(name for name, width in widths.items() if width == probe.width)
    finish(f"regularisation {probe.setting:g}, features: {kind}")
    return EmbeddingTable(probe.embed(features), table.frame, provenance, probe.probabilities(features))


# --- what a split by image would have said -----------------------------------------------------------------------


def inflation(config: Config, folder: Path, say: Say = silent) -> list[dict[str, Any]]:
    """The same models judged three ways, a row a model and headline figure.

    `by_case`: as hierderm does; `own_case_allowed`: the same embeddings, but other pictures of the query's case may be
    its neighbours; `by_image`: trained and tested on a split by image, where pictures of one case are on both sides and
    look-alikes are not kept together. The last has other test pictures, so its difference is not paired.
    """
    artifacts.claim_folder(folder, RUN)
    entries = config.models or (ModelEntry(name=config.name),)
    honest = Fold(config, folder / "by-case", folder / "by-case", *prepare_cases(config, folder / "by-case", say))
    careless = _split_by_image(config, honest.table, folder, say)
    rows = []
    for entry in entries:
        by_case = _row(honest, entry, 0, say)
        by_image = _row(careless, entry, 0, say)
        allowed = _own_case_allowed(config, honest.table, by_case.test, entry.name)
        rows += [
            {
                "model": entry.name,
                "level": level,
                "name": name,
                "by_case": by_case.evaluation[level, name].to_dict(),
                "own_case_allowed": allowed[level, name].to_dict(),
                "by_image": by_image.evaluation[level, name].to_dict(),
            }
            for level, name in (*HEADLINES, ("coarse", "top1_accuracy"), ("fine", "top1_accuracy"))
            if all(e.get((level, name)) for e in (by_case.evaluation, allowed, by_image.evaluation))
        ]
    write_json(folder / "inflation.json", rows)
    return rows


def _split_by_image(config: Config, table: CaseTable, folder: Path, say: Say) -> Fold:
    each_its_own = _every_image_a_case(table)
    source = folder / "every-image-a-case.csv"
    write_taxonomy(table.taxonomy, folder / "taxonomy.csv", replace=True)
    each_its_own.write(source, replace=True)
    settings = {
        "data.cases": str(source),
        "data.taxonomy": str(folder / "taxonomy.csv"),
        "data.image_root": "",
        "split.reuse": False,
        "split.near_duplicates": -1,
    }
    own = with_overrides(config, settings)
    return Fold(own, folder / "by-image", folder / "by-image", *prepare_cases(own, folder / "by-image", say))


def _every_image_a_case(table: CaseTable) -> CaseTable:
    return replace(table, frame=table.frame.assign(**{c.CASE_ID: table.frame[c.IMAGE_ID]}))


def _own_case_allowed(config: Config, table: CaseTable, test: EmbeddingTable, name: str) -> Evaluation:
    every = _every_image_a_case(table.part(c.TEST))
    unbound = replace(test, provenance=Provenance())  # its split hash is that of the cases
    return evaluate_test(config, unbound, every, name)
