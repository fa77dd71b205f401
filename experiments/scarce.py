# The questions: does the tree help conditions with few training images, conditions never seen in training, and where
# labels are wrong; and does what was found hold on another tree, with every second category dropped?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/scarce.py runs/photographs --out scarce.json
# Part 1 sorts the test images of that comparison by the training images of their condition. The other parts fit each
# model anew on the first division, with its settings: a fifth of the conditions keep five training images, two, one
# or none (unseen classes), and none in validation, and these conditions alone are looked at, each once in five folds;
# every second category is left out; a tenth or a fifth of the images that a model learns from or chooses by bear the
# label of another condition. Seed 0 everywhere. Results of the last run and minutes: experiments/README.md.

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.data.table import CaseTable
from hierderm.embeddings import Provenance
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.experiment.run import Run
from hierderm.model.encoder import Encoder
from hierderm.training.features import FeatureStore
from hierderm.training.fit import fit

FOCUS = "hierarchical"
BINS = {"all": (0, 10**9), "1-2": (1, 2), "3-5": (3, 5), "6-20": (6, 20), ">20": (21, 10**9)}
ROUNDS = 2000
Mask = npt.NDArray[np.bool_]
METRICS = ("coarse_map_at_r", "coarse_r1", "fine_map_at_r", "fine_r1", "h_ap", "height")


def values(embeddings: npt.NDArray[np.floating], table: CaseTable) -> pd.DataFrame:
    """What each test image has as a query."""
    scores = retrieval_scores(Labelled(embeddings, table.taxonomy.ancestors[table.fine].T, table.case_ids))
    tree_scores = {"h_ap": scores.tree["hap"], "height": scores.tree["mistake_severity"]}
    return pd.DataFrame(
        tree_scores
        | {
            f"{name}_{short}": scores.levels[level].values[long]
            for name, level in (("coarse", 0), ("fine", -1))
            for short, long in (("map_at_r", "map_at_r"), ("r1", "recall_at_1"))
        }
    )


def summary(frames: dict[str, pd.DataFrame], groups: npt.NDArray[Any]) -> dict[str, Any]:
    """Means of each model, and the paired difference of the focus from it with its interval over cases."""
    _, case = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(0)
    weights = np.stack(
        [np.bincount(rng.integers(0, case.max() + 1, case.max() + 1), minlength=case.max() + 1) for _ in range(ROUNDS)]
    )[:, case]
    result: dict[str, Any] = {"n_images": len(groups)}
    for name, frame in frames.items():
        result[name] = {key: float(np.nanmean(frame[key])) for key in METRICS}
        for key in METRICS if name != FOCUS else ():
            difference = (frames[FOCUS][key] - frame[key]).to_numpy()
            known = ~np.isnan(difference)
            means = (weights[:, known] @ difference[known]) / weights[:, known].sum(axis=1)
            result[name][f"{FOCUS} - {key}"] = [
                float(difference[known].mean()),
                *map(float, np.quantile(means, [0.025, 0.975])),
            ]
    return result


def by_training_images(folds: list[tuple[Path, CaseTable]], models: list[str]) -> dict[str, Any]:
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in models}
    counts, cases = [], []
    for folder, table in folds:
        test = table.part(c.TEST)
        in_training = np.bincount(table.part(c.TRAIN).fine, minlength=table.taxonomy.size(-1))
        counts.append(in_training[test.fine])
        cases.append(test.case_ids)
        for name in models:
            places = sorted(folder.glob(f"models/{name}")) + sorted(folder.glob(f"models/{name}@*"))
            found = [Run.open(place).embeddings().embeddings[table.splits == c.TEST] for place in places]
            parts[name].append(sum(values(e, test) for e in found) / len(found))  # type: ignore[arg-type]
    frames = {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
    n, groups = np.concatenate(counts), np.concatenate(cases)
    result = {}
    for label, (low, high) in BINS.items():
        chosen = (n >= low) & (n <= high)
        if chosen.any():
            result[label] = summary({name: frame[chosen] for name, frame in frames.items()}, groups[chosen])
    return result


# --- changed data: of a table and the number of its fold, what is learnt from, the queries, and queries and gallery ---

Change = Callable[[CaseTable, int], tuple[CaseTable, Mask, Mask]]


def without(table: CaseTable, gone: Mask) -> CaseTable:
    """The table with these images neither in training nor in validation. Rows stay, so that features are found."""
    return replace(table, frame=table.frame.assign(**{c.SPLIT: table.frame[c.SPLIT].where(~gone, c.TEST)}))


def reduced(kept: int, n_groups: int) -> Change:
    """A condition is rare in one fold of `n_groups`: training has at most `kept` of its images, validation none."""

    def change(table: CaseTable, number: int) -> tuple[CaseTable, Mask, Mask]:
        rare, training, test = (table.fine % n_groups == number), table.splits == c.TRAIN, table.splits == c.TEST
        order = np.random.default_rng(0).permutation(len(table))
        nth = np.empty(len(table), dtype=np.int64)
        shuffled = pd.DataFrame({"fine": table.fine[order], "training": training[order]})
        nth[order] = shuffled.groupby(["fine", "training"]).cumcount()
        return without(table, rare & ~test & ~(training & (nth < kept))), rare & test, test

    return change


def other_tree(table: CaseTable, number: int) -> tuple[CaseTable, Mask, Mask]:
    """Every second category dropped, in training, validation and test."""
    kept, test = table.labels(0) % 2 == 0, table.splits == c.TEST
    return without(table, ~kept), kept & test, kept & test


def noisy(share: float) -> Change:
    """A share of the images that are learnt from bear another condition, drawn from all conditions."""

    def change(table: CaseTable, number: int) -> tuple[CaseTable, Mask, Mask]:
        rng, test, size = np.random.default_rng(number), table.splits == c.TEST, table.taxonomy.size(-1)
        wrong = ~test & (rng.random(len(table)) < share)
        other = (table.fine + rng.integers(1, size, len(table))) % size
        names = np.array(table.taxonomy.names(), dtype=object)[np.where(wrong, other, table.fine)]
        return replace(table, frame=table.frame.assign(**{c.CONDITION: names})), test, test

    return change


def with_change(folds: list[tuple[Path, CaseTable]], models: list[str], change: Change, done: Path) -> dict[str, Any]:
    """Each model fitted on changed data in every fold. `done`: a folder of what is finished, for a run that goes on."""
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in models}
    cases = []
    for number, (folder, table) in enumerate(folds):
        learnt, asked, found = change(table, number)
        test = table.select(found)
        cases.append(table.case_ids[asked])
        for name in models:
            place = done / f"{name}-{folder.name}.csv"
            if not place.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                embeddings = fitted_embeddings(folder, name, learnt)
                values(embeddings[found], test)[asked[found]].to_csv(place, index=False)
            frames[name].append(pd.read_csv(place))
    pooled = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
    return summary(pooled, np.concatenate(cases))


def fitted_embeddings(folder: Path, name: str, table: CaseTable) -> npt.NDArray[np.float32]:
    """All images of a table by a model of the comparison, fitted anew on the table."""
    config, store = Run.open(folder / "models" / name).config, FeatureStore(folder.parent / "features")
    with tempfile.TemporaryDirectory() as scratch:
        network = fit(config.training, config.backbone, table, store, Path(scratch)).network
    return store.embed(Encoder(network, Provenance()), table).embeddings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--out", type=Path, default=Path("scarce.json"))
    parser.add_argument("--models", nargs="*", help="of the comparison; all by default")
    options = parser.parse_args()
    places = sorted(options.folder.glob("fold-?"))
    models = options.models or sorted(place.name for place in places[0].glob("models/*") if "@" not in place.name)
    folds = [(place, Run.open(place / "models" / FOCUS).table) for place in places]
    changes = {
        **{f"reduced to {kept}": reduced(kept, len(folds)) for kept in (5, 2, 1)},
        "unseen": reduced(0, len(folds)),
        "another tree": other_tree,
        **{f"{share:.0%} of labels wrong": noisy(share) for share in (0.1, 0.2)},
    }
    result: dict[str, Any] = {"by training images": by_training_images(folds, models)}
    for label, change in changes.items():
        result[label] = with_change(folds, models, change, options.out.with_suffix("") / label.replace(" ", "-"))
        print(label, flush=True)
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
