# The question: an index holds training images, which the discriminants have seen with their labels. Would it serve
# better with each of them embedded by an analysis that has not seen its case?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/out_of_fold.py runs/photographs --out out_of_fold.json
# Test images query training images, once embedded as an index has them, once by ten analyses that leave out a tenth
# of the cases each and are turned into the whole one's coordinates (Procrustes, on the images they have seen).
# 5 folds; two minutes on one core; results of the last run are in experiments/history/2026-11-24.md.

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.linalg import orthogonal_procrustes
from sklearn.model_selection import GroupKFold

from hierderm import columns as c
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.experiment.run import Run
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.tree_analysis import TreeAnalysis

METRICS = ("recall_at_1", "precision_at_10", "knn_accuracy")
FloatArray = npt.NDArray[np.float64]


def fitted(features: FloatArray, table: CaseTable, setting: dict[str, float]) -> Discriminants:
    return TreeAnalysis(features, table.fine, table.taxonomy).fit(**setting)


def left_out(features: FloatArray, table: CaseTable, setting: dict[str, float], whole: FloatArray) -> FloatArray:
    """Each image embedded by an analysis without its case, in the coordinates of `whole`."""
    result = np.zeros_like(whole)
    folds = GroupKFold(10, shuffle=True, random_state=0)
    for seen, unseen in folds.split(features, groups=table.case_ids):
        found = fitted(features[seen], table.select(seen), setting)
        embedded = found.embed(features)
        missing = whole.shape[1] - embedded.shape[1]  # a condition may be gone: fewer directions
        embedded = np.pad(embedded, ((0, 0), (missing, 0)))
        turn, _ = orthogonal_procrustes(embedded[seen], whole[seen])
        result[unseen] = embedded[unseen] @ turn
    return unit_length(result).astype(np.float64)


def scores(queries: FloatArray, asked: CaseTable, gallery: FloatArray, held: CaseTable) -> dict[str, float]:
    def labelled(embeddings: FloatArray, table: CaseTable) -> Labelled:
        return Labelled(embeddings, table.taxonomy.ancestors[table.fine].T, table.case_ids)

    found = retrieval_scores(labelled(queries, asked), labelled(gallery, held))
    ends = {"coarse": found.levels[0], "fine": found.levels[-1]}
    return {f"{name} {key}": float(np.nanmean(ends[name].values[key])) for name in ends for key in METRICS}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--out", type=Path, default=Path("out_of_fold.json"))
    options = parser.parse_args()
    store = FeatureStore(options.folder / "features")
    rows: dict[str, list[dict[str, float]]] = {"as an index has them": [], "out of fold": []}
    sizes = []
    for folder in sorted(options.folder.glob("fold-?")):
        run = Run.open(folder / "models" / "closed-form")
        table, features = run.table, store.features(run.encoder.network.backbone, run.table)
        history = run.history[run.history["features"] == "layers"]
        best = history.sort_values("held_out", kind="stable").to_dict("records")[-1]
        setting = {key: float(best[key]) for key in ("shrinkage", "decay", "strength", "probability_share")}
        train, test = table.part(c.TRAIN), table.part(c.TEST)
        train_features, test_features = (features[table.splits == split] for split in (c.TRAIN, c.TEST))
        found = fitted(train_features, train, setting)
        whole, queries = found.embed(train_features), found.embed(test_features)
        rows["as an index has them"].append(scores(queries, test, whole, train))
        rows["out of fold"].append(scores(queries, test, left_out(train_features, train, setting, whole), train))
        sizes.append(len(test))
    result = {
        name: {key: float(np.average([row[key] for row in folds], weights=sizes)) for key in folds[0]}
        for name, folds in rows.items()
    }
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
