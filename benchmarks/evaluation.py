"""Seconds and peak memory of the whole evaluation of a model, by number of embeddings.

Goals: what all default tasks cost together (retrieval with intervals that allow for the gallery, clustering,
classification, calibration, groups), with 16 categories, 211 conditions, 512 dimensions, two images a case,
probabilities, skin tones, a validation split and 1,000 bootstrap rounds; and `hierderm evaluate X.npy` as a command,
from its start to its end. Each run is a process of its own; medians of three. Non-goals: embedding.

    python benchmarks/evaluation.py --sizes 6500 50000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import machine, peak_mb
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import embeddings_of
from hierderm.evaluation.evaluation import evaluate_subject
from hierderm.evaluation.subject import Subject, case_table, subject_of
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.files import write_json
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.types import Floats

N_FINE, N_COARSE, DIM = 211, 16, 512
VALIDATION = 0.2  # as many again are validation images, which are not scored


def made_up(n: int) -> tuple[Taxonomy, pd.DataFrame, Floats, Floats]:
    """Tree, table, embeddings and class probabilities of `n` test images and a fifth as many of validation."""
    tree = taxonomy_from_paths(
        [(f"C{k * N_COARSE // N_FINE}", f"F{k}") for k in range(N_FINE)], ("category", "condition"), id="made-up"
    )
    rng = np.random.default_rng(0)
    total = round(n * (1 + VALIDATION))
    case = np.arange(total) // 2
    fine = rng.integers(0, N_FINE, total // 2 + 1)[case]
    vectors = rng.standard_normal((total, DIM), dtype=np.float32)
    vectors *= 3
    centres, logits = rng.standard_normal((N_FINE, DIM), dtype=np.float32), rng.standard_normal((total, N_FINE))
    for start in range(0, total, 4096):  # in parts: the peak is to be that of the evaluation
        vectors[start : start + 4096] += centres[fine[start : start + 4096]]
    logits[np.arange(total), fine] += 3
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    frame = pd.DataFrame(
        {
            "case_id": case.astype(str),
            "condition": np.array(tree.names())[fine],
            "fitzpatrick": rng.integers(1, 7, total)[case],
            "split": np.where(case < n // 2, "test", "validation"),
        }
    )
    return tree, frame, vectors, logits


def subject(n: int, rounds: int) -> Subject:
    tree, frame, vectors, probabilities = made_up(n)
    table, config = case_table(frame, tree), EvaluationConfig(bootstrap_rounds=rounds)
    return subject_of(embeddings_of(vectors, table, probabilities), table, config, name="m")


def measure(n: int, rounds: int) -> dict[str, Any]:
    """Seconds and memory of the evaluation of `n` test images."""
    made = subject(n, rounds)
    start = time.perf_counter()
    evaluation = evaluate_subject(made, tasks_named(made.config.tasks))
    return {"metrics": len(evaluation.metrics), "seconds": round(time.perf_counter() - start, 2), "peak_mb": peak_mb()}


def measure_command(n: int, rounds: int) -> dict[str, Any]:
    """The same for the command on an .npy file of test images alone, without probabilities."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        tree, frame, vectors, _ = made_up(n)
        np.save(folder / "x.npy", vectors[:n])
        frame[:n].drop(columns="split").to_csv(folder / "cases.csv", index=False)
        write_taxonomy(tree, folder / "tree.csv")
        setting = ["--evaluation.bootstrap_rounds", str(rounds)]
        command = [
            sys.executable,
            "-m",
            "hierderm",
            "evaluate",
            "x.npy",
            "--cases",
            "cases.csv",
            "-t",
            "tree.csv",
            *setting,
        ]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": peak_mb(resource.RUSAGE_CHILDREN)}


MEASURES = {"evaluate_subject": measure, "hierderm evaluate X.npy": measure_command}


def rows() -> dict[str, Callable[[], object]]:
    """For benchmarks/guard.py."""
    made = {rounds: subject(2000, rounds) for rounds in (0, 1000)}

    def work(rounds: int) -> object:
        return evaluate_subject(replace(made[rounds]), tasks_named(made[rounds].config.tasks))  # nothing is remembered

    return {
        "whole evaluation, 2,000": lambda: work(1000),
        "whole evaluation without intervals, 2,000": lambda: work(0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 6_500])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/evaluation.json"))
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, n = options.one
        print(json.dumps(MEASURES[what](int(n), options.rounds)))
        return
    found: list[dict[str, Any]] = []
    for n in options.sizes:
        for what in MEASURES:
            command = [sys.executable, __file__, "--one", what, str(n), "--rounds", str(options.rounds)]
            runs = [subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(options.runs)]
            every = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
            middle = sorted(every, key=lambda run: run["seconds"])[len(every) // 2]
            seconds = [run["seconds"] for run in every]
            found.append({"n": n, "what": what, "rounds": options.rounds, **middle, "runs": seconds})
            print(json.dumps(found[-1]), flush=True)
            write_json(options.out, {"machine": machine(), "rows": found}, replace=True)
    print(as_markdown(found))


def as_markdown(found: list[dict[str, Any]]) -> str:
    lines = ["| embeddings | what | seconds | peak MB |", "|---|---|---|---|"]
    lines += [f"| {row['n']:,} | {row['what']} | {row['seconds']:.1f} | {row['peak_mb']:,} |" for row in found]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
