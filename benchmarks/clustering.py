"""Seconds of the parts of the clustering scores, and how good the clusters are, beside scikit-learn and scipy.

Goals: five runs of k-means with as many clusters as categories (16) and conditions (211), with their inertia, lower is
better; adjusted mutual information in 100 bootstrap
rounds; silhouettes of six clusterings; Ward's clustering of 3,000.
At 512 dimensions, of embeddings with planted conditions ("planted") and of ones whose directions have very unequal
variance, with a long tail of conditions, as those of trained networks do ("long tail"). Non-goals: memory.

    python benchmarks/clustering.py --sizes 6500 50000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, silhouette_samples

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.agreement import Contingency
from hierderm.evaluation.metrics.clustering import silhouettes, ward_clusters
from hierderm.evaluation.metrics.kmeans import kmeans_clusters
from hierderm.files import write_json

N_FINE, N_COARSE, DIM, SEEDS, ROUNDS, WARD = 211, 16, 512, 5, 100, 3000
KINDS = ("planted", "long tail")


def made_up(n: int, kind: str) -> tuple[Any, Any]:
    """Unit vectors, shape (n, DIM), float32, and their conditions."""
    rng = np.random.default_rng(0)
    if kind == "planted":
        fine = rng.integers(0, N_FINE, n)
        return unit_length(rng.normal(size=(N_FINE, DIM))[fine] + 3 * rng.normal(size=(n, DIM))), fine
    shares = 1 / np.arange(1, N_FINE + 1)
    fine = rng.choice(N_FINE, n, p=shares / shares.sum())
    spread = np.arange(1, DIM + 1) ** -0.7
    return unit_length((rng.normal(size=(N_FINE, DIM))[fine] + rng.normal(size=(n, DIM))) * spread + 0.3 * spread), fine


def inertia(vectors: Any, clusters: Any) -> float:
    """The sum of squared distances from the cluster means."""
    means = np.stack([vectors[clusters == number].mean(axis=0) for number in range(clusters.max() + 1)])
    return float(((vectors - means[clusters]) ** 2).sum())


def rounds_of(fine: Any) -> Any:
    """How often each image counts in bootstrap rounds."""
    rng = np.random.default_rng(1)
    times = [np.bincount(rng.integers(0, len(fine), len(fine)), minlength=len(fine)) for _ in range(ROUNDS)]
    return np.array(times, dtype=np.uint8)


def work(n: int, kind: str) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """For each part our function and that of scikit-learn or scipy."""
    vectors, fine = made_up(n, kind)
    groupings = [fine, *(np.random.default_rng(seed).permutation(fine) for seed in range(5))]
    rounds, clusters = rounds_of(fine), groupings[1]
    repeated = [(np.repeat(fine, times), np.repeat(clusters, times)) for times in rounds]
    parts: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"k-means, {k} clusters": (
            lambda k=k: kmeans_clusters(vectors, k, range(SEEDS)),  # type: ignore[misc]
            lambda k=k: [KMeans(k, n_init=1, random_state=seed).fit(vectors).labels_ for seed in range(SEEDS)],  # type: ignore[misc]
        )
        for k in (N_COARSE, N_FINE)
    }
    parts["adjusted mutual information, 100 rounds"] = (
        lambda: Contingency(fine, clusters).agreement(rounds)["ami"],
        lambda: [adjusted_mutual_info_score(*pair) for pair in repeated],
    )
    parts["silhouettes"] = (
        lambda: silhouettes(vectors, groupings),
        lambda: [silhouette_samples(vectors, groups, metric="cosine") for groups in groupings],
    )
    parts["Ward, 3,000"] = (
        lambda: ward_clusters(vectors[:WARD], [N_COARSE, N_FINE]),
        lambda: linkage(vectors[:WARD], method="ward"),
    )
    return parts


def rows() -> dict[str, Callable[[], object]]:
    """For benchmarks/guard.py."""
    return {f"{name}, 6,500": ours for name, (ours, _) in work(6500, "planted").items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6500])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/clustering.json"))
    options = parser.parse_args()
    found = []
    print("| embeddings | kind | part | hierderm, s | theirs, s | inertia | theirs |\n|---|---|---|---|---|---|---|")
    for n in options.sizes:
        for kind in KINDS:
            vectors, _ = made_up(n, kind)
            for part, functions in work(n, kind).items():
                row: dict[str, Any] = {"n": n, "kind": kind, "part": part}
                for name, function in zip(("ours", "theirs"), functions, strict=True):
                    if name == "theirs" and part == "silhouettes" and n > 10_000:
                        continue  # it takes minutes
                    times = []
                    for _ in range(options.repeats):
                        start = time.perf_counter()
                        result = function()
                        times.append(time.perf_counter() - start)
                    row[name] = round(float(np.median(times)), 3)
                    if part.startswith("k-means"):
                        row[f"{name}_inertia"] = round(float(np.mean([inertia(vectors, run) for run in result])), 2)
                cells = [row.get(key, "") for key in ("ours", "theirs", "ours_inertia", "theirs_inertia")]
                print(f"| {n:,} | {kind} | {part} | {' | '.join(str(cell) for cell in cells)} |", flush=True)
                found.append(row)
                write_json(options.out, found)


if __name__ == "__main__":
    main()
