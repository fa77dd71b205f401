from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import embeddings_of
from hierderm.errors import BenchmarkError, EvaluationWarning
from hierderm.evaluation.catalogue import INDEX_PREFIXES, METRICS, direction
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject, case_table, subject_of
from hierderm.evaluation.tasks.groups import worst_groups
from hierderm.evaluation.tasks.registry import SUITES, TASKS, Task, read_task_file, register, tasks_named
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(12)], ("category", "condition"), id="t")


def subject(n: int = 384) -> Subject:
    """A table with all that any task reads: splits, several images a case, tones, sites, sources, differentials."""
    rng = np.random.default_rng(0)
    fine = np.arange(n) // 2 % 12
    first_half = np.arange(n) < n // 2
    noise = np.where(first_half, 0.1, 1.5)[:, None]  # the second half is hard
    frame = pd.DataFrame(
        {
            "case_id": (np.arange(n) // 2).astype(str),
            "condition": [f"F{k}" for k in fine],
            "fitzpatrick": np.where(first_half, 1, 6),
            "monk": np.where(first_half, 2, 9),
            "skin_tone": np.where(first_half, "I-II", "V-VI"),
            "body_site": np.where(first_half, "arm", "leg"),
            "source": np.where(first_half, "clinic", "web"),
            "weights": [json.dumps({f"F{k}": 0.75, f"F{(k + 1) % 12}": 0.25}) for k in fine],
            "split": np.array(["test", "train", "validation", "test"])[np.arange(n) // 24 % 4],
        }
    )
    table = case_table(frame, TREE)
    probabilities = 0.5 * np.eye(12)[fine] + 0.5 * rng.dirichlet(np.ones(12), n)
    embeddings = embeddings_of(np.eye(12)[fine] + noise * rng.normal(size=(n, 12)), table, probabilities)
    return subject_of(embeddings, table, EvaluationConfig(kmeans_seeds=1), name="m")


FULL = subject()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_task_gives_what_its_leaderboard_names(name: str) -> None:
    keys = TASKS[name].scores(FULL).keys  # in the catalogue, else an error
    assert keys and set(TASKS[name].main) <= set(keys)


def test_each_entry_of_the_catalogue_is_computed() -> None:
    found = {name for task in TASKS.values() for _, name in task.scores(FULL).keys}
    only_of_an_index = {"answer_refused"}  # `search.evaluation` computes it
    assert {name for name in found if not name.startswith(tuple(INDEX_PREFIXES))} | only_of_an_index == set(METRICS)


def test_settings_and_registry_name_the_same_tasks() -> None:
    known = get_args(get_args(get_type_hints(EvaluationConfig)["tasks"])[0])
    assert list(known) == list(TASKS)
    assert set(EvaluationConfig().tasks) | {task for suite in SUITES.values() for task in suite} <= set(TASKS)


def test_a_table_without_more_gives_retrieval_and_clusters_alone() -> None:
    frame = pd.DataFrame({"case_id": np.arange(60).astype(str), "condition": [f"F{k % 12}" for k in range(60)]})
    table = case_table(frame, TREE)
    bare = subject_of(embeddings_of(np.random.default_rng(0).normal(size=(60, 4)), table), table, FULL.config, name="m")
    assert {name for name, task in TASKS.items() if task.scores(bare).keys} == {
        "retrieval", "hierarchy", "clustering", "retrieval_index",
    }  # fmt: skip


def test_the_worst_group_is_found() -> None:
    found = worst_groups(FULL).per_image
    worst = found["coarse", "recall_at_1_of_worst_fitzpatrick"]
    hard = FULL.test.frame["fitzpatrick"].to_numpy(int) == 6
    assert np.isnan(worst[~hard]).all() and not np.isnan(worst[hard]).any()
    assert np.nanmean(worst) < 0.8


def test_names_of_tasks_and_suites() -> None:
    assert [task.name for task in tasks_named(["quick", "retrieval", "knn"])] == [*SUITES["quick"], "knn"]
    with pytest.raises(BenchmarkError, match="unknown task or suite 'retreival'. Closest: 'retrieval'"):
        tasks_named(["retreival"])
    with pytest.raises(BenchmarkError, match="there is a task or a suite 'retrieval' already"):
        register(TASKS["retrieval"])


OWN = """
from hierderm.evaluation.catalogue import MetricEntry
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.tasks.registry import Task, register

def first_coordinate(subject):
    return Scores({("tree", "first"): subject.test.embeddings[:, 0].astype(float)})

register(
    Task(
        "coordinate", "the first coordinate", first_coordinate, (("tree", "first"),),
        metrics=(MetricEntry("first", "First coordinate", "lower"),),
    )
)
"""


@patch.dict(TASKS)
@patch.dict(METRICS)
def test_a_task_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(OWN)
    assert read_task_file(own) == ["coordinate"]
    assert direction("first") == "lower"
    frame = pd.DataFrame({"case_id": ["a", "b"], "condition": ["F0", "F1"]})
    with pytest.warns(EvaluationWarning, match="These values show nothing"):  # of two images
        evaluation = evaluate(np.array([[3.0, 4.0], [0.0, 1.0]]), frame, TREE, tasks=["coordinate"])
    assert evaluation["tree", "first"].value == pytest.approx(0.3)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BenchmarkError, match=r"empty.py must register a task"):
        read_task_file(tmp_path / "empty.py")
    with pytest.raises(BenchmarkError, match="the task file does not exist"):
        read_task_file(tmp_path / "none.py")


def test_a_metric_without_an_entry_is_refused() -> None:
    task = Task("odd", "", lambda s: Scores({("fine", "unheard_of"): np.zeros(len(s.test))}))
    with pytest.raises(BenchmarkError, match=r"every metric of task 'odd' must be in the catalogue, \['unheard_of'\]"):
        task.scores(FULL)
    assert direction("unheard_of") == "none"  # of stored results: shown, not ranked
