"""Seconds and peak memory of the whole evaluation of a model, `evaluate`, by number of embeddings.

Goals: what all default tasks cost together (retrieval with intervals that allow for the gallery, clustering,
classification, calibration, groups), with 16 categories, 211 conditions, 512 dimensions, two images a case,
probabilities, skin tones, a validation split and 1,000 bootstrap rounds; each size in a process of its own.
Non-goals: embedding.

    python benchmarks/evaluation.py --sizes 6500 50000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.artifacts import write_json
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import embeddings_of
from hierderm.evaluation.evaluation import evaluate_subject
from hierderm.evaluation.subject import case_table, subject_of
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.taxonomy.tree import taxonomy_from_paths

N_FINE, N_COARSE, DIM = 211, 16, 512
VALIDATION = 0.2  # as many again are validation images, which are not scored


def measure(n: int, rounds: int) -> dict[str, Any]:
    """Seconds and memory of the evaluation of `n` test images."""
    config = EvaluationConfig(bootstrap_rounds=rounds)
    tree = taxonomy_from_paths(
        [(f"C{k * N_COARSE // N_FINE}", f"F{k}") for k in range(N_FINE)], ("category", "condition"), id="made-up"
    )
    rng = np.random.default_rng(0)
    total = round(n * (1 + VALIDATION))
    case = np.arange(total) // 2
    fine = rng.integers(0, N_FINE, total // 2 + 1)[case]
    vectors = rng.normal(size=(N_FINE, DIM))[fine] + 3 * rng.normal(size=(total, DIM))
    logits = rng.normal(size=(total, N_FINE)) + 3 * np.eye(N_FINE)[fine]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    frame = pd.DataFrame(
        {
            "case_id": case.astype(str),
            "condition": np.array(tree.names())[fine],
            "fitzpatrick": rng.integers(1, 7, total)[case],
            "split": np.where(case < n // 2, "test", "validation"),
        }
    )
    table = case_table(frame, tree)
    subject = subject_of(embeddings_of(vectors, table, probabilities), table, config, name="m")
    del vectors, logits, probabilities
    start = time.perf_counter()
    evaluation = evaluate_subject(subject, tasks_named(config.tasks))
    return {
        "n": n,
        "rounds": rounds,
        "metrics": len(evaluation.metrics),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 6_500])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/evaluation.json"))
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rounds)))
        return
    rows = []
    for n in options.sizes:
        command = [sys.executable, __file__, "--one", str(n), "--rounds", str(options.rounds)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(ended.stdout.strip().splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
        write_json(options.out, rows)
    print(as_markdown(rows))


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| embeddings | metrics | seconds in all | peak GB |", "|---|---|---|---|"]
    lines += [f"| {row['n']:,} | {row['metrics']} | {row['seconds']:.0f} | {row['peak_gb']:.1f} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
