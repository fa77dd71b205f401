# The question: how far is recall@1 limited by the number of images in the gallery?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/gallery.py runs/photographs --models vanilla flat-fine hierarchical
# Test images query test images of other cases, of which each condition keeps at most n, drawn ten times. Queries
# without an image of their condition in the gallery do not count. A minute on one core; results: experiments/README.md.

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.experiment.run import Run

MOST = (1, 2, 3, 5, 8, 12, 10**9)  # images of a condition
DRAWS = 10


def recall_at_1(
    embeddings: npt.NDArray[Any], fine: npt.NDArray[Any], coarse: npt.NDArray[Any], case: npt.NDArray[Any], most: int
) -> list[float]:
    """Coarse and fine, means over the draws."""
    other = case[:, None] != case
    similarity = np.where(other, embeddings @ embeddings.T, -np.inf)
    values = []
    for seed in range(DRAWS if most < len(fine) else 1):
        order = np.random.default_rng(seed).permutation(len(fine))
        nth = np.empty(len(fine), dtype=np.int64)
        nth[order] = pd.Series(fine[order]).groupby(fine[order]).cumcount()
        kept = nth < most
        nearest = np.where(kept, similarity, -np.inf).argmax(axis=1)
        asked = ((fine[:, None] == fine) & other & kept).any(axis=1)
        values.append([(labels[nearest] == labels)[asked].mean() for labels in (coarse, fine)])
    return [float(value) for value in np.mean(values, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    parser.add_argument("--models", nargs="+", default=["vanilla", "flat-fine", "hierarchical"])
    options = parser.parse_args()
    print(f"| n | {' | '.join('all' if most > 10**6 else str(most) for most in MOST)} |")
    for name in options.models:
        folds = []
        for folder in sorted(options.folder.glob("fold-?")):
            run = Run.open(folder / "models" / name)
            test, table = run.table.splits == c.TEST, run.table.part(c.TEST)
            case = np.unique(table.case_ids, return_inverse=True)[1]
            embeddings = run.embeddings().embeddings[test]
            folds.append([recall_at_1(embeddings, table.fine, table.labels(0), case, most) for most in MOST])
        cells = [f"{coarse:.3f} / {fine:.3f}" for coarse, fine in np.mean(folds, axis=0)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
