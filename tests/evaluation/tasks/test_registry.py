from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.config.settings import EvaluationConfig
from hierderm.errors import BenchmarkError
from hierderm.evaluation.figures import Figures
from hierderm.evaluation.subject import Subject, subject_of
from hierderm.evaluation.tasks.registry import SUITES, TASKS, Task, read_task_file, register, tasks_named, worst_groups
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")


def subject(n: int = 180) -> Subject:
    rng = np.random.default_rng(0)
    fine = np.arange(n) % 9
    noise = np.where(np.arange(n) < n // 2, 0.1, 1.5)[:, None]  # the second half is hard
    frame = pd.DataFrame(
        {
            "case_id": np.arange(n).astype(str),
            "condition": [f"F{k}" for k in fine],
            "fitzpatrick": np.where(np.arange(n) < n // 2, 1, 6),
            "split": np.array(["test", "train"])[np.arange(n) // 9 % 2],
        }
    )
    return subject_of(np.eye(9)[fine] + noise * rng.normal(size=(n, 9)), frame, TREE, EvaluationConfig(), name="m")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_task_gives_the_figures_that_its_leaderboard_names(name: str) -> None:
    task = TASKS[name]
    found = task.figures(subject())
    keys = {*found.per_image, *found.per_case, *(key for statistic in found.statistics for key in statistic.keys)}
    if name not in ("classification", "calibration", "soft_labels"):  # these need more than embeddings
        assert keys and set(task.main) <= keys


def test_the_worst_group_is_found() -> None:
    found = worst_groups(subject()).per_image
    worst = found["coarse", "recall_at_1_of_worst_fitzpatrick"]
    assert np.isnan(worst[:45]).all() and not np.isnan(worst[45:]).any()
    assert np.nanmean(worst) < 0.8


def test_names_of_tasks_and_suites() -> None:
    assert [task.name for task in tasks_named(["quick", "retrieval", "knn"])] == [*SUITES["quick"], "knn"]
    with pytest.raises(BenchmarkError, match="unknown task or suite 'retreival'. Closest: 'retrieval'"):
        tasks_named(["retreival"])
    with pytest.raises(BenchmarkError, match="there is a task 'retrieval' already"):
        register(TASKS["retrieval"])


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierderm.evaluation.tasks.registry.TASKS", TASKS.copy() | {})
    own = tmp_path / "mine.py"
    own.write_text(
        "from hierderm.evaluation.tasks.registry import Task, register\n"
        "from hierderm.evaluation.figures import Figures\n"
        'def length(subject):\n    return Figures({("tree", "first"): subject.test.embeddings[:, 0].astype(float)})\n'
        'register(Task("length", "the first coordinate", length, (("tree", "first"),)))\n'
    )
    assert read_task_file(own) == ["length"]
    assert tasks_named(["length"])[0].figures(subject()).per_image.keys() == {("tree", "first")}
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BenchmarkError, match=r"empty.py must register a task"):
        read_task_file(tmp_path / "empty.py")
    with pytest.raises(BenchmarkError, match="the task file does not exist"):
        read_task_file(tmp_path / "none.py")


def test_a_task_is_a_value() -> None:
    assert Task("a", "b", lambda _: Figures(), ()).version == 1
