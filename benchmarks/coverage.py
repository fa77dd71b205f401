"""Do the 95 % intervals of an evaluation cover the truth in 95 % of test sets?

Goals: coverage of the intervals over cases, for metrics of one model and for paired differences of two, by simulation:
many test sets are drawn from one made-up population (a tree of 8 categories and 32 conditions with a long tail, one to
three similar images a case), each is evaluated, and the truth is the mean of the metric over all test sets, for
retrieval and clustering depend on the size of the test set. Non-goals: the variance between seeds; populations
unlike this one. The same population with a classifier that is too sure of itself: do conformal sets hold the truth as
often as they state, at each level and in each category, and how often is the error of answers above the target?

    python benchmarks/coverage.py --tests 200 --out benchmarks/coverage.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.evaluation.catalogue import metric_name
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.inference.differences import paired_difference
from hierderm.evaluation.metrics.calibration import (
    conformal_sets,
    conformal_threshold,
    scaled,
    temperature,
)
from hierderm.evaluation.metrics.selective import AnswerRule
from hierderm.files import write_json
from hierderm.taxonomy.tree import taxonomy_from_paths
from hierderm.types import IntArray

TREE = taxonomy_from_paths([(f"C{k // 4}", f"F{k}") for k in range(32)], ("category", "condition"), id="made-up")
SHOWN = (
    ("coarse", "recall_at_1"), ("fine", "recall_at_1"), ("coarse", "map_at_r"), ("fine", "map_at_r"),
    ("coarse", "ami"), ("fine", "ami"), ("tree", "hap"), ("tree", "lca_height_at_10"),
)  # fmt: skip
DIM = 16
LEVELS = ("coarse", "fine")
N_CHECK = 2000  # test cases of each repetition of the second part
Key = tuple[str, str]
FloatArray = npt.NDArray[np.float64]


def population() -> tuple[FloatArray, FloatArray]:
    """Centre and share of each condition, shape (32, dim) and (32,)."""
    shape = np.random.default_rng(0)
    centres = shape.normal(size=(8, DIM)).repeat(4, axis=0) + 0.7 * shape.normal(size=(32, DIM))
    share = 1 / (1 + np.arange(32)[shape.permutation(32)])
    return centres, share / share.sum()


def draw_test(rng: np.random.Generator, n_cases: int, noise: float) -> tuple[EmbeddingTable, EmbeddingTable]:
    """A test set as two models see it: the second with more noise."""
    centres, share = population()
    fine = rng.choice(32, n_cases, p=share)
    case = np.arange(n_cases).repeat(rng.integers(1, 4, n_cases))
    of_case = centres[fine] + noise * rng.normal(size=(n_cases, DIM))
    images = of_case[case] + 0.4 * rng.normal(size=(len(case), DIM))
    worse = images + 0.5 * rng.normal(size=(n_cases, DIM))[case]
    frame = pd.DataFrame(
        {
            "image_id": np.arange(len(case)).astype(str),
            "case_id": case.astype(str),
            "condition": np.array(TREE.names())[fine[case]],
        }
    )
    return EmbeddingTable(unit_length(images), frame), EmbeddingTable(unit_length(worse), frame)


def rows() -> dict[str, Callable[[], object]]:
    """For benchmarks/guard.py."""
    table, _ = draw_test(np.random.default_rng(1), 150, 1.2)
    config = EvaluationConfig(bootstrap_rounds=200, kmeans_seeds=3)
    return {
        "evaluation of one test set": lambda: evaluate(table, table.frame, TREE, config=config),
        "20 repetitions of conformal sets and answers": lambda: calibration_rows(20, 150, config),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--cases", type=int, default=150)
    parser.add_argument("--noise", type=float, default=1.2, help="spread of a condition; 3 leaves little to find")
    parser.add_argument("--repetitions", type=int, default=1000, help="of conformal sets and answers")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/coverage.json"))
    options = parser.parse_args()
    config = EvaluationConfig(bootstrap_rounds=options.rounds, kmeans_seeds=3)
    single: dict[Key, list[tuple[float, float, float]]] = defaultdict(list)
    paired: dict[Key, list[tuple[float, float, float]]] = defaultdict(list)
    for number in range(options.tests):
        tables = draw_test(np.random.default_rng(number + 1), options.cases, options.noise)
        first, second = (
            evaluate(table, table.frame, TREE, config=config, name=name)
            for table, name in zip(tables, "ab", strict=True)
        )
        for key in SHOWN:
            metric, difference = first[key], paired_difference(first, second, key, config.confidence)
            assert difference is not None
            single[key].append((metric.value, metric.low, metric.high))
            paired[key].append((difference.value, difference.low, difference.high))
    rows = [
        {"metric": metric_name(*key), "one_model": covered(single[key]), "difference": covered(paired[key])}
        for key in SHOWN
    ]
    calibration = calibration_rows(options.repetitions, options.cases, config)
    write_json(
        options.out,
        {
            "tests": options.tests,
            "cases": options.cases,
            "rounds": options.rounds,
            "noise": options.noise,
            "rows": rows,
            "repetitions": options.repetitions,
            "calibration": calibration,
        },
    )
    print(as_markdown(json.loads(options.out.read_text(encoding="utf-8"))))


def calibration_rows(repetitions: int, n_cases: int, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Conformal sets and answers learnt on as many validation cases as the test has, and checked on a large test."""
    rng = np.random.default_rng(0)
    coverage: dict[str, list[float]] = defaultdict(list)
    by_category: dict[str, list[list[float]]] = {level: [[] for _ in range(8)] for level in LEVELS}
    error: dict[str, list[float]] = defaultdict(list)
    for _ in range(repetitions):
        probabilities, fine = draw_classified(rng, n_cases + N_CHECK)
        learnt = scaled(probabilities, temperature(probabilities[:n_cases], fine[:n_cases]))
        validation, test = learnt[:n_cases], learnt[n_cases:]
        truth = fine[n_cases:]
        answers = AnswerRule.learn(validation, fine[:n_cases], TREE, 1 - config.answer_error).apply(test, TREE)
        for number, level in enumerate(LEVELS):
            labels = TREE.to_level(truth, number)
            on_validation = TREE.sum_up(validation, number)
            threshold = conformal_threshold(
                on_validation, TREE.to_level(fine[:n_cases], number), config.conformal_error
            )
            inside = conformal_sets(TREE.sum_up(test, number), threshold)[np.arange(len(labels)), labels]
            coverage[level].append(float(inside.mean()))
            for category, of_category in enumerate(by_category[level]):
                of_category.append(float(inside[TREE.to_level(truth, 0) == category].mean()))
            if (answers.level == number).any():
                error[level].append(float((answers.node != labels)[answers.level == number].mean()))
    return [
        {
            "level": level,
            "stated_coverage": 1 - config.conformal_error,
            "coverage": float(np.mean(coverage[level])),
            "category_coverage": [float(np.nanmean(of_category)) for of_category in by_category[level]],
            "wanted_error": config.answer_error,
            "answered_in": len(error[level]) / repetitions,
            "mean_error": float(np.mean(error[level])) if error[level] else None,
            "error_above_wanted": float(np.mean(np.array(error[level]) > config.answer_error))
            if error[level]
            else None,
        }
        for level in LEVELS
    ]


def draw_classified(rng: np.random.Generator, n: int) -> tuple[FloatArray, IntArray]:
    """Probabilities of a classifier that knows the centres and is twice as sure as it may be, and the conditions."""
    centres, share = population()
    fine = rng.choice(32, n, p=share)
    seen = centres[fine] + 2.2 * rng.normal(size=(n, DIM))
    distance = ((seen[:, None] - centres) ** 2).sum(axis=2)
    logits = 2 * (np.log(share) - distance / (2 * 2.2**2))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), fine


def covered(intervals: list[tuple[float, float, float]]) -> dict[str, float]:
    """The truth, the share of intervals it lies in, and their mean width."""
    values = np.array(intervals)
    truth = float(values[:, 0].mean())
    inside = (values[:, 1] <= truth) & (truth <= values[:, 2])
    return {"truth": truth, "coverage": float(inside.mean()), "width": float((values[:, 2] - values[:, 1]).mean())}


def as_markdown(content: dict[str, Any]) -> str:
    lines = [
        "| metric | mean | coverage | mean width | mean difference | coverage | mean width |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        cells = [
            f"{row[part]['truth']:.3f} | {row[part]['coverage']:.1%} | {row[part]['width']:.3f}"
            for part in ("one_model", "difference")
        ]
        lines.append(f"| {row['metric']} | {' | '.join(cells)} |")
    lines += [
        "",
        "| level | nominal coverage | coverage | worst and best category | target error | mean error | above it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in content["calibration"]:
        ends = f"{min(row['category_coverage']):.1%}, {max(row['category_coverage']):.1%}"
        said = "– | –" if row["mean_error"] is None else f"{row['mean_error']:.1%} | {row['error_above_wanted']:.1%}"
        lines.append(
            f"| {row['level']} | {row['stated_coverage']:.0%} | {row['coverage']:.1%} | {ends} "
            f"| {row['wanted_error']:.0%} | {said} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
