# The question: which settings of the losses are best, and what do the models reach whose settings are chosen for each
# fold on its validation images, with as many settings to choose from for hierarchical as for the flat baselines?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/recipe.py experiments/recipe.toml runs/photographs --out recipe.json
# Every model of recipe.toml is fitted on the folds of that comparison's first division, whose features it shares. What
# stands before the first '.' of a model's name is its family: in each fold the model with the best mean of MAP@R and
# recall@1 on validation speaks for its family. With --seeds 3 a model is an ensemble: three fits whose dropout and
# order of images differ, on the same augmented views, their embeddings side by side. A run that was stopped goes on.
# Results: experiments/README.md.

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import adjusted_mutual_info_score

from hierderm import columns as c
from hierderm.config.describe import reads
from hierderm.config.loading import load_comparison, model_config
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.embeddings import Provenance
from hierderm.evaluation.metrics.kmeans import kmeans_clusters
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.run import Run
from hierderm.model.encoder import Encoder
from hierderm.model.network import Network
from hierderm.training.features import FeatureStore
from hierderm.training.fit import fit, is_frozen
from hierderm.types import Vectors

SEEDS = (0, 1, 2)  # of k-means
METRICS = ("ami", "map_at_r", "recall_at_1")


class SameViews(FeatureStore):
    """Features of seed 0, whatever the seed of the training."""

    def for_training(self, *arguments: Any, seed: int = 0) -> tuple[list[Vectors], Vectors]:
        return super().for_training(*arguments)


def embedded(network: Network, store: FeatureStore, table: CaseTable) -> npt.NDArray[np.float32]:
    """All images of a table by a model, from the features in the store."""
    return store.embed(Encoder(network, Provenance()), table).embeddings


def six(embeddings: npt.NDArray[np.float32], table: CaseTable) -> dict[str, float]:
    """The main metrics of images among themselves."""
    labels = table.taxonomy.ancestors[table.fine].T
    found = retrieval_scores(Labelled(embeddings, labels, table.case_ids))
    result = dict[str, float]()
    for name, level in (("coarse", 0), ("fine", -1)):
        clusters = kmeans_clusters(embeddings, len(np.unique(labels[level])), SEEDS)
        ami = [adjusted_mutual_info_score(labels[level], one) for one in clusters]
        result |= {f"{name}_{metric}": float(np.nanmean(found.levels[level].values[metric])) for metric in METRICS[1:]}
        result[f"{name}_ami"] = float(np.mean(ami))
    return result


def fitted(config: Config, folder: Path, store: FeatureStore, seeds: int = 1) -> dict[str, Any]:
    """A model fitted on a fold: its score on validation, which may choose it, and the metrics of its test images."""
    table = Run.open(folder / "models" / "vanilla").table
    members, seconds = [], 0.0
    seeds = seeds if reads(config, "training.seed") else 1
    for seed in range(seeds):
        training = replace(cast(Any, config.training), seed=seed) if seeds > 1 else config.training
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            network = fit(training, config.backbone, table, store, Path(scratch)).network.eval()
        seconds += time.perf_counter() - start
        with tempfile.TemporaryDirectory() as scratch:
            members.append(embedded(network, store if is_frozen(training) else FeatureStore(Path(scratch)), table))
    vectors = np.concatenate(members, axis=1) / np.float32(seeds**0.5)
    parts = {part: vectors[table.splits == part] for part in (c.VALIDATION, c.TEST)}
    chosen_by = validation_scores(parts[c.VALIDATION], table.part(c.VALIDATION))["mean_retrieval"]
    return {"seconds": seconds, "validation": chosen_by, **six(parts[c.TEST], table.part(c.TEST))}


def table_of(rows: pd.DataFrame) -> list[str]:
    """Means over the folds as a Markdown table; then of each family the model that validation chose in each fold."""
    names = [f"{level}_{metric}" for level in ("coarse", "fine") for metric in METRICS]
    title = " | ".join(name.replace("_", " ", 1) for name in names)
    lines = [f"| model | folds | validation | {title} | seconds |", "|---" * 10 + "|"]

    def line(name: str, found: pd.DataFrame) -> str:
        cells = [f"{found[key].mean():.3f}" for key in ("validation", *names)]
        return f"| {name} | {len(found)} | {' | '.join(cells)} | {found['seconds'].mean():.0f} |"

    lines += [line(str(name), found) for name, found in rows.groupby("model", sort=False)]
    for family, found in rows.groupby(rows["model"].str.partition(".")[0], sort=False):
        if found["model"].nunique() > 1:
            found = found.dropna(subset="validation")
            whole = found[found.groupby("model")["fold"].transform("size") == found["fold"].nunique()]
            best = whole.loc[whole.groupby("fold")["validation"].idxmax()]
            lines.append(line(f"**{family}**, chosen of {whole['model'].nunique()}", best))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path, help="recipe.toml")
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--out", type=Path, default=Path("recipe.json"))
    parser.add_argument("--folds", type=int, default=5, help="the first so many")
    parser.add_argument("--only", nargs="+", default=["*"], help="models, by name or by a pattern such as 'variant.*'")
    parser.add_argument("--seeds", type=int, default=1, help="members of an ensemble")
    options = parser.parse_args(arguments)
    comparison, store = load_comparison(options.models), SameViews(options.folder / "features")
    rows: list[dict[str, Any]] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else []
    if others := {row.get("seeds", 1) for row in rows} - {options.seeds}:
        parser.error(f"{options.out} must hold models of --seeds {options.seeds}, it has {others}: choose another")
    names = [entry.name for entry in comparison.models]
    if unknown := [one for one in options.only if not any(fnmatchcase(name, one) for name in names)]:
        parser.error(f"--only must name models of {options.models}, none is called {unknown}")
    done = {(row["model"], row["fold"]) for row in rows}
    for entry in comparison.models:
        for folder in sorted(options.folder.glob("fold-?"))[: options.folds]:
            if any(fnmatchcase(entry.name, one) for one in options.only) and (entry.name, folder.name) not in done:
                rows.append({"model": entry.name, "fold": folder.name, "seeds": options.seeds})
                rows[-1] |= fitted(model_config(comparison, entry), folder, store, options.seeds)
                options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(json.dumps(rows[-1]), flush=True)
    print("\n".join(table_of(pd.DataFrame(rows))))


if __name__ == "__main__":
    main()
