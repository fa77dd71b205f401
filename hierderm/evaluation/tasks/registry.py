"""The tasks, by name: what an evaluation computes and a benchmark ranks.

A task takes a subject (one model's embeddings) and gives scores. A task of your own is a short file with a function and
a `register`, read by `hierderm bench run --task-file mine.py`.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hierderm.errors import BenchmarkError, suggest
from hierderm.evaluation.catalogue import TREE, Key, MetricEntry, add_metric, find_entry
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.evaluation.tasks.calibration import calibration
from hierderm.evaluation.tasks.classification import classification
from hierderm.evaluation.tasks.clustering import clustering
from hierderm.evaluation.tasks.groups import worst_groups
from hierderm.evaluation.tasks.retrieval import hierarchy, retrieval
from hierderm.evaluation.tasks.retrieval_index import retrieval_index
from hierderm.evaluation.tasks.soft_labels import soft_labels
from hierderm.evaluation.tasks.training_based import few_shot, knn, linear_probe


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: In configurations and commands.
        about: One line for lists of tasks.
        compute: The function that gives its scores.
        main: Level and name of the metrics that are ranked in the leaderboard.
        version: Raise it when the values change, so that stored results are computed again.
        metrics: Entries of the catalogue for metrics of its own, which `register` adds.
    """

    name: str
    about: str
    compute: Callable[[Subject], Scores]
    main: tuple[Key, ...] = ()
    version: int = 1
    metrics: tuple[MetricEntry, ...] = ()

    def scores(self, subject: Subject) -> Scores:
        """Compute the scores.

        Args:
            subject: One model's embeddings, and the cases.

        Returns:
            The scores.

        Raises:
            BenchmarkError: One of them has no entry in the catalogue.
        """
        found = self.compute(subject)
        unknown = sorted({name for _, name in found.keys if find_entry(name) is None})
        if unknown:
            raise BenchmarkError(
                f"every metric of task '{self.name}' must be in the catalogue, {unknown} are not. "
                "Give their entries: Task(..., metrics=(MetricEntry(name, title, direction),))."
            )
        return found


TASKS: dict[str, Task] = {}
SUITES: dict[str, tuple[str, ...]] = {
    "core": (
        "clustering", "retrieval", "hierarchy", "knn", "linear_probe", "few_shot", "classification", "calibration",
        "groups",
    ),
    "quick": ("clustering", "retrieval", "hierarchy"),
}  # fmt: skip
TOP_K_ABOVE = 200_000  # test images; above, the default tasks are LARGE_TASKS
LARGE_TASKS = ("retrieval_index", "classification", "calibration")


def register(task: Task) -> Task:
    """Make a task and its metrics known by name.

    Args:
        task: The task.

    Returns:
        The same task.

    Raises:
        BenchmarkError: Its name, or that of one of its metrics, is taken or no identifier.
    """
    if task.name in TASKS or task.name in SUITES:
        raise BenchmarkError(f"there is a task or a suite '{task.name}' already; give yours another name.")
    if not task.name.isidentifier():  # it names the file of its results
        raise BenchmarkError(f"a task's name must be of letters, digits and '_', got '{task.name}'.")
    for entry in task.metrics:
        add_metric(entry)
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
        raise BenchmarkError(f"{path} must register a task: register(Task(name, about, compute, main)).")
    return new


def tasks_named(names: Sequence[str] | str) -> list[Task]:
    """The tasks of these names, or of the suites among them, each once."""
    names = [names] if isinstance(names, str) else names
    flat = [task for name in names for task in SUITES.get(name, (name,))]
    unknown = [name for name in flat if name not in TASKS]
    if unknown:
        hint = suggest(unknown[0], [*TASKS, *SUITES])
        raise BenchmarkError(f"unknown task or suite '{unknown[0]}'.{hint} There are {[*SUITES, *TASKS]}.")
    return [TASKS[name] for name in dict.fromkeys(flat)]


for _task in (
    Task(
        "retrieval", "nearest test images of other cases", retrieval,
        (("coarse", "map_at_r"), ("coarse", "recall_at_1"), ("fine", "map_at_r"), ("fine", "recall_at_1")),
    ),
    Task(
        "hierarchy", "retrieval with credit by the tree", hierarchy,
        ((TREE, "hap"), (TREE, "lca_height_at_10")), version=2,
    ),
    Task(
        "clustering", "k-means and agglomerative clusters against the labels", clustering,
        (("coarse", "ami"), ("fine", "ami")),
    ),
    Task(
        "classification", "the model's own classifier", classification,
        (("coarse", "top1_accuracy"), ("fine", "balanced_accuracy")), version=2,
    ),
    Task(
        "calibration", "calibration of its probabilities, answers, conformal sets", calibration,
        (("fine", "ece"), ("fine", "aurc")), version=4,
    ),
    Task(
        "soft_labels", "agreement with weighted differentials", soft_labels, (("fine", "expected_relevance_at_10"),)
    ),
    Task(
        "knn", "a vote of the 5 nearest training images", knn,
        (("coarse", "train_knn_accuracy"), ("fine", "train_knn_accuracy")),
    ),
    Task(
        "linear_probe", "logistic regression on the frozen embeddings", linear_probe,
        (("coarse", "linear_probe_accuracy"), ("fine", "linear_probe_accuracy")), version=2,
    ),
    Task(
        "few_shot", "prototypes of 1, 5 and 10 training images a condition", few_shot,
        (("fine", "few_shot_1"), ("fine", "few_shot_5")),
    ),
    Task("groups", "the worst skin tone, body site and source", worst_groups),
    Task(
        "retrieval_index", "the first 10 neighbours through an index, beside exact search", retrieval_index,
        (("coarse", "index_recall_at_1"), ("fine", "index_recall_at_1"), (TREE, "index_true_neighbours_at_10")),
    ),
):  # fmt: skip
    register(_task)
