"""The tasks of a benchmark, by name. A task takes a subject (one model's embeddings) and gives figures.

A new one is a short file with a function and a `register`, read by `hierderm bench run --task-file mine.py`.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hierderm.errors import BenchmarkError, suggest
from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.figures import Figures
from hierderm.evaluation.inference.groups import FEWEST_CASES, groups_of
from hierderm.evaluation.subject import Subject
from hierderm.evaluation.tasks import families
from hierderm.types import FloatArray


@dataclass(frozen=True)
class Task:
    """`figures`: what is computed; `main`: the figures that stand in the leaderboard and are ranked.

    `version`: raise it when the figures change, so that stored results are made anew.
    """

    name: str
    about: str
    figures: Callable[[Subject], Figures]
    main: tuple[Key, ...]
    version: int = 1


TASKS: dict[str, Task] = {}
SUITES: dict[str, tuple[str, ...]] = {
    "core": (
        "clustering", "retrieval", "hierarchy", "knn", "linear_probe", "few_shot", "classification", "calibration",
        "groups",
    ),
    "quick": ("clustering", "retrieval", "hierarchy"),
}  # fmt: skip


def register(task: Task) -> Task:
    """Make a task known by its name; a name that is taken is a BenchmarkError."""
    if task.name in TASKS:
        raise BenchmarkError(f"there is a task '{task.name}' already; give yours another name.")
    TASKS[task.name] = task
    return task


def read_task_file(path: Path) -> list[str]:
    """Run a Python file that registers tasks; their names. Only for files you trust: it is your own code."""
    if not path.is_file():
        raise BenchmarkError(f"{path}: the task file does not exist.")
    before = set(TASKS)
    runpy.run_path(str(path))
    new = [name for name in TASKS if name not in before]
    if not new:
        raise BenchmarkError(f"{path} must register a task: register(Task(name, about, figures, main)).")
    return new


def tasks_named(names: Sequence[str]) -> list[Task]:
    """The tasks of these names, or of the suites among them, each once."""
    flat = [task for name in names for task in SUITES.get(name, (name,))]
    unknown = [name for name in flat if name not in TASKS]
    if unknown:
        hint = suggest(unknown[0], [*TASKS, *SUITES])
        raise BenchmarkError(f"unknown task or suite '{unknown[0]}'.{hint} There are {[*SUITES, *TASKS]}.")
    return [TASKS[name] for name in dict.fromkeys(flat)]


def _of_levels(figures: Figures) -> Figures:
    return replace(figures, per_image={key: v for key, v in figures.per_image.items() if key[0] != TREE})


def _of_tree(figures: Figures) -> Figures:
    kept = {key: v for key, v in figures.per_image.items() if key[0] == TREE}
    return Figures(kept)


def worst_groups(subject: Subject) -> Figures:
    """Recall@1 of the worst group of each grouping, of those with at least 10 cases; the choice is not resampled."""
    found: dict[Key, FloatArray] = {}
    cases = subject.test.case_ids
    for column, names in groups_of(subject.test.frame).items():
        for level, name in subject.levels:
            values = subject.retrieval.levels[level].values["recall_at_1"]
            of_groups = {
                group: np.where(names == group, values, np.nan)
                for group in sorted(set(names) - {""})
                if len(np.unique(cases[names == group])) >= FEWEST_CASES
            }
            means = {group: float(np.nanmean(v)) for group, v in of_groups.items() if not np.isnan(v).all()}
            if len(means) > 1:
                found[name, f"recall_at_1_of_worst_{column}"] = of_groups[min(means, key=lambda group: means[group])]
    return Figures(found)


for _task in (
    Task(
        "clustering", "k-means and agglomerative clusters against the labels", families.clustering,
        (("coarse", "ami"), ("fine", "ami")),
    ),
    Task(
        "retrieval", "nearest test pictures of other cases", lambda s: _of_levels(families.retrieval(s)),
        (("coarse", "map_at_r"), ("coarse", "recall_at_1"), ("fine", "map_at_r"), ("fine", "recall_at_1")),
    ),
    Task(
        "hierarchy", "retrieval with credit by the tree", lambda s: _of_tree(families.retrieval(s)),
        ((TREE, "hap"), (TREE, "lca_height_at_10")),
    ),
    Task(
        "knn", "a vote of the 5 nearest training pictures", families.knn,
        (("coarse", "train_knn_accuracy"), ("fine", "train_knn_accuracy")),
    ),
    Task(
        "linear_probe", "logistic regression on the frozen embeddings", families.probe,
        (("coarse", "linear_probe_accuracy"), ("fine", "linear_probe_accuracy")),
    ),
    Task(
        "few_shot", "prototypes of 1, 5 and 10 training pictures a condition", families.few_shots,
        (("fine", "few_shot_1"), ("fine", "few_shot_5")),
    ),
    Task(
        "classification", "the model's own classifier", families.classification,
        (("coarse", "top1_accuracy"), ("fine", "balanced_accuracy")),
    ),
    Task(
        "calibration", "honesty of its probabilities, answers, conformal sets", families.trust,
        (("fine", "ece"), ("fine", "aurc")),
    ),
    Task("groups", "the worst skin tone, body site and source", worst_groups, ()),
    Task(
        "soft_labels", "agreement with weighted differentials", families.soft_labels,
        (("fine", "expected_relevance_at_10"),),
    ),
):  # fmt: skip
    register(_task)
