"""Do the 95 % intervals of an evaluation cover the truth in 95 % of test sets?

Goals: coverage of the intervals over cases, for figures of one model and for paired differences of two, by simulation:
many test sets are drawn from one made-up population (a tree of 8 categories and 32 conditions with a long tail, one to
three alike pictures a case), each is evaluated, and the truth is the mean of the figure over all test sets, for
retrieval and clustering figures depend on the size of the test set. Non-goals: the luck of training; populations
unlike this one.

    python benchmarks/coverage.py --tests 200 --out benchmarks/coverage.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.config import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.evaluate.summary import evaluate_embeddings, paired_difference
from hierderm.files import write_json
from hierderm.report.names import metric_name
from hierderm.taxonomy import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 4}", f"F{k}") for k in range(32)], ("category", "condition"), id="made-up")
SHOWN = (
    ("coarse", "recall_at_1"), ("fine", "recall_at_1"), ("coarse", "map_at_r"), ("fine", "map_at_r"),
    ("coarse", "ami"), ("fine", "ami"), ("tree", "hap"), ("tree", "lca_height_at_10"),
)  # fmt: skip
DIM = 16
Key = tuple[str, str]


def draw_test(rng: np.random.Generator, n_cases: int) -> tuple[EmbeddingTable, EmbeddingTable]:
    """A test set as two models see it: the second with more noise."""
    shape = np.random.default_rng(0)
    centres = shape.normal(size=(8, DIM)).repeat(4, axis=0) + 0.7 * shape.normal(size=(32, DIM))
    share = 1 / (1 + np.arange(32)[shape.permutation(32)])
    fine = rng.choice(32, n_cases, p=share / share.sum())
    case = np.arange(n_cases).repeat(rng.integers(1, 4, n_cases))
    of_case = centres[fine] + 1.2 * rng.normal(size=(n_cases, DIM))
    pictures = of_case[case] + 0.4 * rng.normal(size=(len(case), DIM))
    worse = pictures + 0.5 * rng.normal(size=(n_cases, DIM))[case]
    frame = pd.DataFrame(
        {
            "image_id": np.arange(len(case)).astype(str),
            "case_id": case.astype(str),
            "condition": np.array(TREE.names())[fine[case]],
        }
    )
    return EmbeddingTable(unit_length(pictures), frame), EmbeddingTable(unit_length(worse), frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/coverage.json"))
    options = parser.parse_args()
    config = EvaluationConfig(bootstrap_rounds=options.rounds, kmeans_seeds=3)
    single: dict[Key, list[tuple[float, float, float]]] = defaultdict(list)
    paired: dict[Key, list[tuple[float, float, float]]] = defaultdict(list)
    for number in range(options.tests):
        tables = draw_test(np.random.default_rng(number + 1), options.cases)
        first, second = (
            evaluate_embeddings(table, TREE, config, name=name) for table, name in zip(tables, "ab", strict=True)
        )
        for key in SHOWN:
            metric, difference = first[key], paired_difference(first, second, key, config.confidence)
            assert difference is not None
            single[key].append((metric.value, metric.low, metric.high))
            paired[key].append((difference.value, difference.low, difference.high))
    rows = [
        {"figure": metric_name(*key), "one_model": covered(single[key]), "difference": covered(paired[key])}
        for key in SHOWN
    ]
    write_json(options.out, {"tests": options.tests, "cases": options.cases, "rounds": options.rounds, "rows": rows})
    print(as_markdown(json.loads(options.out.read_text())))


def covered(intervals: list[tuple[float, float, float]]) -> dict[str, float]:
    """The truth, the share of intervals it lies in, and their mean width."""
    values = np.array(intervals)
    truth = float(values[:, 0].mean())
    inside = (values[:, 1] <= truth) & (truth <= values[:, 2])
    return {"truth": truth, "coverage": float(inside.mean()), "width": float((values[:, 2] - values[:, 1]).mean())}


def as_markdown(content: dict[str, Any]) -> str:
    lines = [
        "| figure | mean | coverage | mean width | mean difference | coverage | mean width |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        cells = [
            f"{row[part]['truth']:.3f} | {row[part]['coverage']:.1%} | {row[part]['width']:.3f}"
            for part in ("one_model", "difference")
        ]
        lines.append(f"| {row['figure']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
