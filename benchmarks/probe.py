"""Seconds and accuracy of the linear probe over its whole path, beside scikit-learn's solver run until it converges.

Goals: the five penalties of the probe, none left out, on features of all layers of a network (2,912) and of its output
(1,280): 1,650 made-up images in six views, of which five are augmented, of 87 conditions with a long tail; accuracy on
1,000 more images. And the path beside scikit-learn's (lbfgs, tol 1e-8): how far apart the accuracies are. At the full
size it is run at the best penalty alone and starts at our solution, else it would take hours: the objective is strictly
convex, so that wherever it starts it ends in the one optimum. Non-goals: which penalty is best; how good features are.

    python benchmarks/probe.py
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hierderm.evaluation.metrics.probing import PENALTIES, LinearProbe, fit_linear_probe
from hierderm.files import write_json

VIEWS, CLASSES, TEST = 6, 87, 1000
FULL = (1650, 2912, 1280)  # images, features of all layers, features of the output
BESIDE = ((300, 400), (500, 800))  # images and features


def made_up(n_images: int, dim: int) -> tuple[Any, Any, Any, Any]:
    """Training features, shape (VIEWS * n_images, dim), float32, their labels, and those of test images."""
    rng = np.random.default_rng(0)
    total, latent = n_images + TEST, min(800, dim)
    shares = np.arange(1, CLASSES + 1) ** -0.8
    labels = rng.choice(CLASSES, total, p=shares / shares.sum())
    labels[:CLASSES] = np.arange(CLASSES)
    spread = np.arange(1, latent + 1) ** -0.5
    mixing = rng.normal(size=(latent, dim)) / latent**0.5
    centres = 1.5 * rng.normal(size=(CLASSES, latent)) * np.arange(1, latent + 1) ** -0.3

    def seen(hidden: Any, noise: float) -> Any:
        moved = (hidden + noise * rng.normal(size=hidden.shape)) * spread
        return (moved @ mixing + 0.02 * rng.normal(size=(len(hidden), dim))).astype(np.float32)

    hidden = centres[labels] + rng.normal(size=(total, latent))
    views = [seen(hidden[:n_images], 0.5 * (view > 0)) for view in range(VIEWS)]
    train_labels = np.tile(labels[:n_images], VIEWS)
    return np.concatenate(views), train_labels, seen(hidden[n_images:], 0), labels[n_images:]


def path(train: Any, labels: Any, test: Any, truth: Any) -> tuple[list[float], list[LinearProbe]]:
    """Test accuracy of our probe at each penalty, and the probes."""
    accuracies: list[float] = []
    probes: list[LinearProbe] = []

    def score(probe: LinearProbe) -> float:
        accuracies.append(float((probe.predict(test) == truth).mean()))
        probes.append(probe)
        return probe.penalty  # which never falls, so that none is left out

    fit_linear_probe(train, labels, score=score)
    return accuracies, probes


def their_path(train: Any, labels: Any, test: Any, truth: Any, starts: Sequence[LinearProbe] = ()) -> list[float]:
    """Test accuracy of scikit-learn's at each penalty, each from the solution before; of `starts` from these alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler, accuracies = StandardScaler().fit(train), []
    standard = scaler.transform(train).astype(np.float64)
    model = LogisticRegression(warm_start=True, tol=1e-8, max_iter=20_000)
    begun: dict[float, LinearProbe] = {probe.penalty: probe for probe in starts}
    for penalty in begun or PENALTIES:
        if probe := begun.get(penalty):
            model.coef_, model.intercept_ = (np.asarray(found, np.float64) for found in (probe.weight, probe.bias))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lbfgs says where it can't get on in the last digits
            model.set_params(C=penalty).fit(standard, labels)
        accuracies.append(float((model.predict(scaler.transform(test)) == truth).mean()))
    return accuracies


def rows() -> dict[str, Callable[[], object]]:
    """For benchmarks/guard.py."""
    train, labels, test, truth = made_up(*FULL[:2])
    widths = FULL[1:]
    return {
        "9,900 x 2,912 and x 1,280, 87 classes, whole path": lambda: [
            path(train[:, :width], labels, test[:, :width], truth) for width in widths
        ]
    }


def noted(found: list[dict[str, Any]], out: Path, solver: str, size: tuple[int, int], work: Callable[[], Any]) -> Any:
    """What `work` gives; its seconds and accuracies are printed and written."""
    start = time.perf_counter()
    result = work()
    accuracies = result[0] if isinstance(result, tuple) else result
    row = {"rows": size[0], "features": size[1], "solver": solver, "seconds": round(time.perf_counter() - start, 1)}
    found.append(row | {"accuracies": accuracies})
    shown = ", ".join(f"{value:.3f}" for value in accuracies)
    print(f"| {size[0]:,} | {size[1]:,} | {solver} | {row['seconds']} | {shown} |", flush=True)
    write_json(out, found)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/probe.json"))
    parser.add_argument("--no-full", action="store_true", help="leave out the full size")
    parser.add_argument("--full-beside", action="store_true", help="scikit-learn at the full size, too")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    print("| rows | features | solver | seconds | accuracy at each penalty |\n|---|---|---|---|---|")
    sizes = [*((n, dim, dim, True) for n, dim in BESIDE)]
    if not options.no_full:
        sizes += [(FULL[0], FULL[1], width, options.full_beside and width == FULL[1]) for width in FULL[1:]]
    for n, dim, width, beside in sizes:
        train, labels, test, truth = made_up(n, dim)
        data, size = (train[:, :width], labels, test[:, :width], truth), (len(train), width)
        accuracies, probes = noted(found, options.out, "hierderm", size, partial(path, *data))
        if beside:
            starts = [probes[int(np.argmax(accuracies))]] if n == FULL[0] else []
            solver = "scikit-learn, from the best" if starts else "scikit-learn"
            noted(found, options.out, solver, size, partial(their_path, *data, starts))


if __name__ == "__main__":
    main()
