# The question: which settings of the losses are best, and what do the models reach whose settings are chosen for each
# fold on its validation images, with as many settings to choose from for hierarchical as for the flat baselines?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/recipe.py experiments/recipe.toml runs/photographs --out recipe.json
# Every model of recipe.toml is fitted on the folds of that comparison's first division, whose features it shares. What
# stands before the first '.' of a model's name is its family: in each fold the model with the best MAP@R on validation
# (mean of both levels) speaks for its family. A run that was stopped goes on. Results: experiments/README.md.

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import adjusted_mutual_info_score

from hierderm import columns as c
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
from hierderm.training.fit import fit

SEEDS = (0, 1, 2)  # of k-means
METRICS = ("ami", "map_at_r", "recall_at_1")


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


def fitted(config: Config, folder: Path, store: FeatureStore) -> dict[str, Any]:
    """A model fitted on a fold: its score on validation, which may choose it, and the metrics of its test images."""
    table = Run.open(folder / "models" / "vanilla").table
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        network = fit(config.training, config.backbone, table, store, Path(scratch)).network.eval()
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as scratch:
        frozen = getattr(config.training, "freeze", "frozen") == "frozen"
        vectors = embedded(network, store if frozen else FeatureStore(Path(scratch)), table)
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
    parser.add_argument("--only", default="", help="models whose names begin so")
    options = parser.parse_args(arguments)
    comparison, store = load_comparison(options.models), FeatureStore(options.folder / "features")
    rows: list[dict[str, Any]] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else []
    done = {(row["model"], row["fold"]) for row in rows}
    for entry in comparison.models:
        for folder in sorted(options.folder.glob("fold-?"))[: options.folds]:
            if entry.name.startswith(options.only) and (entry.name, folder.name) not in done:
                rows.append({"model": entry.name, "fold": folder.name})
                rows[-1] |= fitted(model_config(comparison, entry), folder, store)
                options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(json.dumps(rows[-1]), flush=True)
    print("\n".join(table_of(pd.DataFrame(rows))))


if __name__ == "__main__":
    main()
