# The questions: does the tree help conditions with few training images, conditions never seen in training, and does
# what was found hold on another tree, with every second category dropped?
# Command: hierderm compare experiments/tree.toml --out runs/tree --data.cases .. --data.taxonomy ..
#          python experiments/scarce.py runs/tree --out scarce.json
# Part 1 sorts the test images of that comparison by the training images of their condition. Part 2 leaves two
# training images to a fifth of the conditions, or none (unseen classes), and nothing in validation, fits each analysis
# anew and looks at these conditions alone. Part 3 does the same without every second category. Seed 0 in both.
# 5 folds; fifteen minutes on one core; results of the last run are in experiments/README.md, section 8.

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.config.methods import TreeLda
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.experiment.run import Run
from hierderm.training.features import FeatureStore
from hierderm.training.frozen import FrozenData, best_of
from hierderm.training.methods.tree_lda import Images, every_setting, shuffled
from hierderm.training.tree_analysis import TreeAnalysis

MODELS = ("vanilla", "linear-probe", "lda", "flat-fine", "flat-coarse", "random-tree", "hierarchical")
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
    """Means of each model, and the paired difference of hierarchical with its interval over cases."""
    _, case = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(0)
    weights = np.stack(
        [np.bincount(rng.integers(0, case.max() + 1, case.max() + 1), minlength=case.max() + 1) for _ in range(ROUNDS)]
    )[:, case]
    result: dict[str, Any] = {"n_images": len(groups)}
    for name, frame in frames.items():
        result[name] = {key: float(np.nanmean(frame[key])) for key in METRICS}
        for key in METRICS if name != "hierarchical" else ():
            difference = (frames["hierarchical"][key] - frame[key]).to_numpy()
            known = ~np.isnan(difference)
            means = (weights[:, known] @ difference[known]) / weights[:, known].sum(axis=1)
            result[name][f"hierarchical - {key}"] = [
                float(difference[known].mean()),
                *map(float, np.quantile(means, [0.025, 0.975])),
            ]
    return result


def by_training_images(folds: list[tuple[Path, CaseTable]]) -> dict[str, Any]:
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in MODELS}
    counts, cases = [], []
    for folder, table in folds:
        test = table.part(c.TEST)
        in_training = np.bincount(table.part(c.TRAIN).fine, minlength=table.taxonomy.size(-1))
        counts.append(in_training[test.fine])
        cases.append(test.case_ids)
        for name in MODELS:
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


@dataclass
class Analysis:
    """All analyses of one fold, fitted on some of its training images and chosen on some of validation.

    `grids`: what each model of tree.toml tries, on features of all layers.
    """

    grids: dict[str, TreeLda]
    table: CaseTable
    views: list[Any]
    validation_features: Any
    test_features: Any
    output_dim: int

    def values(self, in_training: Mask, in_validation: Mask, in_test: Mask) -> dict[str, pd.DataFrame]:
        """What each test image of `in_test` has as a query among them, by model."""
        tree = self.table.taxonomy
        train, validation, test = (
            _rows(self.table.part(s), m) for s, m in zip(c.SPLITS, (in_training, in_validation, in_test), strict=True)
        )
        features = np.concatenate([view[in_training] for view in self.views])
        result = {"vanilla": values(unit_length(self.test_features[in_test][:, : self.output_dim]), test)}
        for name, grid in self.grids.items():
            own = shuffled(tree, 0) if grid.shuffle else tree
            levels, n_views = grid.probability_levels, len(self.views)
            analysis = TreeAnalysis(features, train.fine, own, n_views=n_views, probability_levels=levels)
            seen = Images(self.views[0][in_training], train)
            held_out = Images(self.validation_features[in_validation], validation)
            best, _, _ = best_of(every_setting(grid, analysis, seen, held_out), "held_out")
            result[name] = values(best.embed(self.test_features[in_test]), test)
        return result


def analyses(folds: list[tuple[Path, CaseTable]]) -> list[Analysis]:
    result = []
    for folder, table in folds:
        configs = {name: Run.open(folder / "models" / name).config for name in MODELS}
        grids = {name: own.training for name, own in configs.items() if isinstance(own.training, TreeLda)}
        store = FeatureStore(folder.parent / "features")
        data = FrozenData.load(grids["hierarchical"], configs["hierarchical"].backbone, table, store)
        test_features = store.features(data.backbone, table)[table.splits == c.TEST]
        result.append(
            Analysis(grids, table, data.views, data.validation_features, test_features, data.backbone.output_dim)
        )
    return result


def reduced(folds: list[Analysis], kept: int) -> dict[str, Any]:
    """Each condition is rare once: training sees at most `kept` of its images, validation none."""
    parts, cases = [], []
    for number, fold in enumerate(folds):
        rare = np.arange(fold.table.taxonomy.size(-1)) % len(folds) == number
        fine = [fold.table.part(split).fine for split in c.SPLITS]
        order = np.random.default_rng(0).permutation(len(fine[0]))
        nth = np.empty(len(order), dtype=np.int64)
        nth[order] = pd.Series(fine[0][order]).groupby(fine[0][order]).cumcount()
        rare_validation, rare_test = rare[fine[1]], rare[fine[2]]
        found = fold.values(~rare[fine[0]] | (nth < kept), ~rare_validation, np.ones(len(rare_test), dtype=bool))
        parts.append({name: frame[rare_test] for name, frame in found.items()})
        cases.append(fold.table.part(c.TEST).case_ids[rare_test])
    return summary(_pooled(parts), np.concatenate(cases))


def other_tree(folds: list[Analysis]) -> dict[str, Any]:
    """Every second category dropped, in training, validation and test."""
    parts, cases = [], []
    for fold in folds:
        masks = [fold.table.part(split).labels(0) % 2 == 0 for split in c.SPLITS]
        parts.append(fold.values(*masks))
        cases.append(fold.table.part(c.TEST).case_ids[masks[-1]])
    return summary(_pooled(parts), np.concatenate(cases))


def _pooled(parts: list[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def _rows(table: CaseTable, chosen: Mask) -> CaseTable:
    return replace(table, frame=table.frame[chosen].reset_index(drop=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/tree.toml`")
    parser.add_argument("--out", type=Path, default=Path("scarce.json"))
    options = parser.parse_args()
    folds = []
    for folder in sorted(options.folder.glob("fold-?")):
        folds.append((folder, Run.open(folder / "models" / "hierarchical").table))
    fitted = analyses(folds)
    result = {
        "by training images": by_training_images(folds),
        "reduced to 2": reduced(fitted, 2),
        "unseen": reduced(fitted, 0),
        "another tree": other_tree(fitted),
    }
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
