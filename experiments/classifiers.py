# The question: why is a linear probe the better classifier, and do it and the model on the tree know different things?
# Command: hierderm compare experiments/photographs.toml --out runs/photographs --data.cases .. --data.taxonomy ..
#          python experiments/classifiers.py runs/photographs
# Accuracy, decisions of least expected height in the tree (CRM), and log-likelihood of the test images of the first
# division, of the comparison's models, and of two together: the product or the mean of their class probabilities.
# Means over folds. Results of the last run: experiments/README.md.

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hierderm import columns as c
from hierderm.data.table import CaseTable
from hierderm.evaluation.metrics.decoding import crm_decode
from hierderm.experiment.run import Run

Array = npt.NDArray[np.float64]
MODELS = ("linear-probe", "lda", "flat-fine", "closed-form", "hierarchical")
TITLES = (
    "accuracy, coarse | accuracy, fine | with CRM, coarse | with CRM, fine | severity | mean height | log-likelihood"
)
LEAST = 1e-9  # of a probability


def product(one: Array, other: Array) -> Array:
    """The geometric mean of two sets of class probabilities, shape (n_images, n_fine), rows summing to 1."""
    found = np.sqrt(np.maximum(one, LEAST) * np.maximum(other, LEAST))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def scores(probabilities: Array, table: CaseTable) -> list[float]:
    """The columns of the table. Severity is the mean height of wrong decisions alone."""
    truth, tree = table.fine, table.taxonomy
    first, careful = probabilities.argmax(axis=1), crm_decode(probabilities, tree)
    paid = tree.lca_height[truth, careful]
    right = [tree.to_level(own, level) == table.labels(level) for own in (first, careful) for level in (0, -1)]
    likelihood = np.log(np.maximum(probabilities[np.arange(len(truth)), truth], LEAST))
    severity = float(paid[paid > 0].mean()) if paid.any() else float("nan")
    return [*(float(one.mean()) for one in right), severity, float(paid.mean()), float(likelihood.mean())]


def of_fold(place: Path) -> dict[str, list[float]]:
    """The row of each model, and of the probe together with each other one."""
    found, table = dict[str, Array](), Run.open(place / "models" / MODELS[0]).table
    test = table.splits == c.TEST
    for name in MODELS:
        probabilities = Run.open(place / "models" / name).embeddings().probabilities
        assert probabilities is not None  # all of them classify
        found[name] = probabilities[test].astype(np.float64)
    probe, *others = MODELS
    found |= {f"{probe} times {name}": product(found[probe], found[name]) for name in others}
    found |= {f"mean of {probe} and {others[-1]}": (found[probe] + found[others[-1]]) / 2}
    return {name: scores(probabilities, table.select(test)) for name, probabilities in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="of `hierderm compare experiments/photographs.toml`")
    folds = [of_fold(place) for place in sorted(parser.parse_args().folder.glob("fold-?"))]
    print(f"| model | {TITLES} |\n|{'---|' * 8}")
    for name in folds[0]:
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in np.mean([fold[name] for fold in folds], axis=0))} |")


if __name__ == "__main__":
    main()
