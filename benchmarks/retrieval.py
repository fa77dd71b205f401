"""Seconds and peak memory of the retrieval metrics, compared with pytorch-metric-learning and open-metric-learning.

Goals: what scoring a whole data set costs at both levels of a tree (16 categories, 211 conditions, 512 dimensions),
each library in a process of its own, whose peak memory is taken; medians of three where a run takes under a minute.
Non-goals: the same metrics: hierderm's call gives all of its own (seven a level and five of the tree, own case left
out), the others give precision@1, MAP@R, R-precision and reciprocal rank (pytorch-metric-learning) or CMC, precision
and MAP (open-metric-learning).

    python benchmarks/retrieval.py --sizes 2000 6500 20000 50000 --oml-python /path/to/its/environment/bin/python

A process that needs more than 18 GB fails. open-metric-learning wants numpy < 2, so it needs an environment of its own;
without --oml-python its rows are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import case_scores, retrieval_scores
from hierderm.files import write_json

QUICK = 60  # seconds; what takes less is run three times
COMMON = """
import sys, time, resource, json
import numpy as np
n = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (18_000_000_000,) * 2)  # so that a failure is its own, not the machine's
rng = np.random.default_rng(0)
fine = rng.integers(0, 211, n)
centres = rng.standard_normal((211, 512), dtype=np.float32)
embeddings = rng.standard_normal((n, 512), dtype=np.float32)
for start in range(0, n, 4096):  # in parts: the peak is to be that of the metrics
    part = embeddings[start : start + 4096]
    part *= 3
    part += centres[fine[start : start + 4096]]
    part /= np.linalg.norm(part, axis=1, keepdims=True)
levels = [fine // 14, fine]
def done(start, map_at_r):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak, "fine_map_at_r": map_at_r}))
"""
HIERDERM = """
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import retrieval_scores
start = time.perf_counter()
scores = retrieval_scores(Labelled(embeddings, np.stack(levels), np.arange(n)))
done(start, float(np.nanmean(scores.levels[1].values["map_at_r"])))
"""
PML = """
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
include = ("precision_at_1", "mean_average_precision_at_r", "r_precision", "mean_reciprocal_rank")
start = time.perf_counter()
for labels in levels:
    calculator = AccuracyCalculator(include=include, device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))
done(start, float(found["mean_average_precision_at_r"]))
"""
OML = """
import torch
from oml.functional.metrics import calc_retrieval_metrics
start = time.perf_counter()
queries = torch.from_numpy(embeddings)
for labels in levels:  # MAP at the number of relevant items, as far as its interface lets: a whole ranking
    distances = torch.cdist(queries, queries)
    distances.fill_diagonal_(float("inf"))
    ranking = distances.argsort(dim=1)[:, :-1]
    labels = torch.from_numpy(labels)
    places = torch.arange(n)
    relevant = [places[(labels == label) & (places != query)] for query, label in enumerate(labels)]
    found = calc_retrieval_metrics(
        retrieved_ids=list(ranking), gt_ids=relevant, cmc_top_k=(1, 10), precision_top_k=(10,), map_top_k=(n - 1,),
        verbose=False,
    )
done(start, None)
"""


def measure(python: str, script: str, n: int, seconds: float) -> dict[str, Any]:
    """Run a script in a process of its own; what it says, or why it did not end well."""
    command = [python, "-c", COMMON + script, str(n)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {seconds:.0f} s"}
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        return {"failed": lines[-1][:200] if lines else f"killed by signal {-ended.returncode}"}
    return dict(json.loads(ended.stdout.strip().splitlines()[-1]))


def rows() -> dict[str, Callable[[], object]]:
    """For benchmarks/guard.py."""
    rng, n = np.random.default_rng(0), 6500
    fine = rng.integers(0, 211, n)
    vectors = unit_length(rng.standard_normal((211, 512))[fine] + 3 * rng.standard_normal((n, 512)))
    images = Labelled(vectors, np.stack([fine // 14, fine]), np.arange(n) // 2)
    return {
        "metrics, 6,500": lambda: retrieval_scores(images),
        "metrics and effects of the gallery, 6,500": lambda: retrieval_scores(images, gallery_effects=True),
        "cases by best pair, 6,500": lambda: case_scores(images, "best", metrics=["map_at_r"]),
        "cases by mean, 6,500": lambda: case_scores(images, "mean", metrics=["map_at_r"]),
        "5 nearest, 6,500": lambda: nearest_items(images, k=5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 6_500])
    parser.add_argument("--oml-python", default="")
    parser.add_argument("--most-seconds", type=float, default=900)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/retrieval.json"))
    options = parser.parse_args()
    scripts = {"hierderm": (sys.executable, HIERDERM), "pytorch-metric-learning": (sys.executable, PML)}
    if options.oml_python:
        scripts["open-metric-learning"] = (options.oml_python, OML)
    found: list[dict[str, Any]] = []
    for n in options.sizes:
        for name, (python, script) in scripts.items():
            runs = [measure(python, script, n, options.most_seconds)]
            if runs[0].get("seconds", QUICK) < QUICK:
                runs += [measure(python, script, n, options.most_seconds) for _ in range(2)]
            middle = sorted(runs, key=lambda run: run.get("seconds", 0.0))[len(runs) // 2]
            seconds = [round(run["seconds"], 3) for run in runs if "seconds" in run]
            found.append({"n": n, "library": name, **middle, "runs": seconds})
            print(json.dumps(found[-1]), flush=True)
            write_json(options.out, {"machine": machine(), "rows": found})
    print(as_markdown(found))


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| embeddings | library | seconds | peak GB |", "|---|---|---|---|"]
    for row in rows:
        cost = f"{row['seconds']:.1f} | {row['peak_gb']:.1f}" if "seconds" in row else f"{row['failed']} | "
        lines.append(f"| {row['n']:,} | {row['library']} | {cost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
