"""Planted embeddings, and all values of their evaluation, which `regression.json` pins.

The file holds the values of commit e3fa371, before the evaluation was reorganised, but for the linear probe, which is
another solver since, and the answers, whose first test is of other numbers of cases since. To write it again after a change that is meant: `python -m tests.evaluation.regression`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.evaluation.evaluation import Evaluation, evaluate
from hierderm.evaluation.inference.combine import combine_folds, combine_seeds
from hierderm.evaluation.inference.differences import Difference, adjusted, paired_difference
from hierderm.evaluation.tasks.registry import TASKS
from hierderm.taxonomy.tree import taxonomy_from_paths

FILE = Path(__file__).with_name("regression.json")
LEVELS = {2: ("category", "condition"), 3: ("branch", "category", "condition")}
CONFIG = EvaluationConfig(bootstrap_rounds=40, kmeans_seeds=2, permutations=50, agglomerative_images=100)
MODELS = ((2.0, 1), (3.0, 2))  # noise and seed
N_FINE, N_CASES, DIM = 12, 400, 16
SHARES = np.arange(N_FINE, 0, -1) ** 1.7  # the rarest conditions have one case in the test, or none


def paths(n_levels: int) -> list[tuple[str, ...]]:
    """A tree of 12 conditions in 4 categories, and with three levels in 2 branches."""
    every = [(f"B{k // 6}", f"C{k // 3}", f"F{k}") for k in range(N_FINE)]
    return [path[3 - n_levels :] for path in every]


def planted(noise: float, seed: int, n_levels: int) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Embeddings, table and class probabilities with structure at every level; cases have one to four images."""
    rng = np.random.default_rng(5)  # the cases are those of every model
    of_case = rng.choice(N_FINE, N_CASES, p=SHARES / SHARES.sum())
    case = np.repeat(np.arange(N_CASES), rng.integers(1, 5, N_CASES) // 2 + 1)
    fine, n = of_case[case], len(case)
    splits = np.array(["train", "validation", "test"])[np.digitize(rng.random(N_CASES), [0.3, 0.6])]
    tones = rng.integers(0, 7, N_CASES)
    second = (fine + rng.integers(1, N_FINE, n)) % N_FINE
    differential = rng.random(n) < 0.4
    frame = pd.DataFrame(
        {
            "image_path": [f"{k}.png" for k in range(n)],
            "image_id": [f"i{k}" for k in range(n)],
            "case_id": [f"c{k}" for k in case],
            "condition": [f"F{k}" for k in fine],
            "split": splits[case],
            "fitzpatrick": ["" if tone == 0 else str(tone) for tone in tones[case]],
            "body_site": np.array(["arm", "leg", "head", ""])[rng.integers(0, 4, N_CASES)][case],
            "weights": [
                json.dumps({f"F{a}": 0.75, f"F{b}": 0.25}) if given else ""
                for a, b, given in zip(fine, second, differential, strict=True)
            ],
        }
    )
    place = np.array([[int(name[1:]) for name in path] for path in paths(n_levels)])
    centres = sum(
        2 * np.random.default_rng(level).normal(size=(N_FINE, DIM))[place[:, level]] for level in range(n_levels)
    )
    rng = np.random.default_rng(seed)
    moved = rng.normal(size=(N_CASES, DIM))[case] + rng.normal(size=(n, DIM))
    embeddings = centres[fine] + noise * moved
    test = np.flatnonzero(splits[case] == "test")
    embeddings[test[3]] = embeddings[test[40]]  # twins: ties in similarity
    logits = (
        1.5 * np.eye(N_FINE)[fine] + 1.5 * (place[fine, -2][:, None] == place[:, -2]) + rng.normal(size=(n, N_FINE))
    )
    powers = np.exp(1.5 * logits)
    return embeddings, frame, powers / powers.sum(axis=1, keepdims=True)


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of another fold: validation and test change roles."""
    return frame.assign(split=frame["split"].map({"train": "train", "validation": "test", "test": "validation"}))


def pinned(evaluation: Evaluation) -> dict[str, Any]:
    """Every number of an evaluation under a key of its own; floats with 13 digits."""
    found: dict[str, Any] = {}
    for m in evaluation.metrics:
        found[f"metric {m.level} {m.name}"] = [m.value, m.low, m.high, m.count, m.skipped]
    for g in evaluation.groups:
        if g.column == "fitzpatrick":
            key = f"group {g.column} {g.group} {g.level} {g.name}"
            found[key] = [g.value, g.low, g.high, g.n_images, g.n_cases]
    for gap in evaluation.gaps:
        key = f"gap {gap.column} {gap.level} {gap.name} {gap.worst} {gap.best}"
        found[key] = [gap.value, gap.low, gap.high, gap.p_value]
    for (level, name), rounds in evaluation.replicates.items():
        found[f"rounds {level} {name}"] = [float(np.nanmean(rounds)), float(np.nanstd(rounds)), float(rounds[7])]
    for (level, name), values in evaluation.per_image.items():
        known = values[~np.isnan(values)]
        found[f"images {level} {name}"] = [len(known), float(known @ np.arange(len(known))), float(known.std())]
    for number, row in enumerate((*evaluation.categories, *evaluation.neighbours)):
        found[f"row {number}"] = row
    found |= {f"details {name}": content for name, content in evaluation.details.items()}
    found["n_warnings"] = len(evaluation.warnings)
    return {key: rounded(value) for key, value in found.items()}


def compared(differences: list[Difference]) -> dict[str, Any]:
    """Every number of paired differences."""
    return {
        f"difference {d.level} {d.name}": rounded([d.value, d.low, d.high, d.p_value, d.p_adjusted])
        for d in differences
    }


def rounded(value: Any) -> Any:
    """For JSON: nan as null, floats with 13 digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{value:.13g}")
    return int(value) if isinstance(value, np.integer) else value


def every_value(n_levels: int) -> dict[str, dict[str, Any]]:
    """Two models on one split, the second on another, their differences and combinations."""
    tree = taxonomy_from_paths(paths(n_levels), LEVELS[n_levels], id="planted")
    found: dict[str, dict[str, Any]] = {}
    evaluations = []
    for noise, seed in MODELS:
        embeddings, frame, probabilities = planted(noise, seed, n_levels)
        tasks = [name for name in TASKS if name not in ("groups", "retrieval_index")]  # the latter only adds an index
        settings: Any = {"tasks": tasks, "config": CONFIG, "probabilities": probabilities}
        evaluations.append(evaluate(embeddings, frame, tree, name=f"model {seed}", **settings))
        found[f"{n_levels} levels, model {seed}"] = pinned(evaluations[-1])
        worst = evaluate(embeddings, frame, tree, tasks=["groups"], config=replace(CONFIG, groups=False))
        found[f"{n_levels} levels, worst groups, model {seed}"] = pinned(worst)
    other = evaluate(embeddings, swapped(frame), tree, name="model 2", **settings)
    keys = [(metric.level, metric.name) for metric in evaluations[0].metrics]
    differences = [paired_difference(evaluations[0], evaluations[1], key, 0.95) for key in keys]
    found[f"{n_levels} levels, differences"] = compared(adjusted([d for d in differences if d]))
    for name, combined in (
        ("seeds", combine_seeds(evaluations, 0.95, 3)),
        ("folds", combine_folds([evaluations[1], other], 0.95)),
    ):
        numbers = {key: value for key, value in pinned(combined).items() if key.startswith("metric ")}
        found[f"{n_levels} levels, {name}"] = numbers
    return found


def one_line_each(content: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each value that is pinned, so that a change of one is a change of one line."""
    blocks = []
    for name, values in content.items():
        lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in values.items()]
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    content = {name: numbers for n_levels in LEVELS for name, numbers in every_value(n_levels).items()}
    FILE.write_text(one_line_each(content))
