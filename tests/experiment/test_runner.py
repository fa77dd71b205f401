"""The runner and its store, with the public `bench`: resumption, identity, and what is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hierderm
from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import BenchmarkError
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.tasks.registry import TASKS, tasks_named
from hierderm.experiment import results as store
from hierderm.experiment.results import Results
from hierderm.files import write_json

pytestmark = pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
QUICK = EvaluationConfig(bootstrap_rounds=20, kmeans_seeds=1, permutations=10)
NAMES = ("retrieval", "clustering", "knn")


def vectors(table: CaseTable, seed: int, noise: float = 0.5) -> np.ndarray:
    return np.eye(9)[table.fine] + noise * np.random.default_rng(seed).normal(size=(len(table), 9))


def bench(table: CaseTable, folder: Path, *, seed: int = 0, **changes: Any) -> Results:
    models = {"a": vectors(table, seed), "b": vectors(table, 9)}
    options: dict[str, Any] = {"tasks": NAMES, "folder": folder, "config": QUICK, **changes}
    return hierderm.bench(models, table, table.taxonomy, **options)


def times(folder: Path) -> dict[str, int]:
    return {f"{path.parent.name} {path.stem}": path.stat().st_mtime_ns for path in folder.glob("results/*/*.json")}


def changed(before: dict[str, int], folder: Path) -> set[str]:
    return {name for name, time in times(folder).items() if before.get(name) != time}


def in_order(content: dict[str, Any]) -> Any:
    """Rows sorted, numbers to nine digits: sums of several columns at a time differ in the last bits."""
    for part, names in (("metrics", ()), ("groups", ("column", "group")), ("gaps", ("column",))):
        content[part].sort(key=lambda row, names=names: [row[name] for name in (*names, "level", "name")])
    return json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 9))


def rounded(value: Any) -> Any:
    """Nested content with its numbers to nine digits: sums in another order differ in the last ones."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 9) if isinstance(value, float) else value


def test_results_are_those_of_evaluate(toy: CaseTable, tmp_path: Path) -> None:
    """Tasks computed apart, stored, read and joined give what one evaluation of all gives."""
    numbers = np.unique(toy.case_ids, return_inverse=True)[1]
    frame = toy.frame.assign(source=np.where(numbers % 2, "here", "there")).drop(columns="split")  # every case a test
    toy = replace(toy, frame=frame)
    results = bench(toy, tmp_path)
    together = evaluate(vectors(toy, 0), toy, toy.taxonomy, tasks=NAMES, config=QUICK, name="a")
    joined = results.joined("a", tasks_named(NAMES))
    for part in ("replicates", "per_image"):
        found, wanted = getattr(joined, part), getattr(together, part)
        assert found.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], atol=1e-12)
    assert joined.groups and joined.gaps and joined.categories
    assert rounded(in_order(joined.to_dict())) == rounded(in_order(together.to_dict()))
    assert "a (3 tasks), b (3 tasks)" in repr(results)
    assert results.to_pandas()["mean_rank"].is_monotonic_increasing


def test_a_killed_run_goes_on(toy: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench(toy, tmp_path / "whole")

    def killed(path: Path, content: dict[str, object]) -> None:
        if path.name == "clustering.json":
            raise KeyboardInterrupt  # its arrays are written, its JSON is not
        write_json(path, content)

    folder = tmp_path / "killed"
    monkeypatch.setattr(store, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        bench(toy, folder)
    monkeypatch.undo()
    before = times(folder)
    assert set(before) == {"a retrieval"}
    resumed = bench(toy, folder)
    assert changed(before, folder) == {"a clustering", "a knn", "b retrieval", "b clustering", "b knn"}
    for model, tasks in whole.models.items():
        for task, result in tasks.items():
            assert repr(resumed.models[model][task].evaluation.metrics) == repr(result.evaluation.metrics)
    (folder / "results/a/knn.npz").unlink()
    before = times(folder)
    bench(toy, folder)
    assert changed(before, folder) == {"a knn"}


def test_what_is_made_anew(toy: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task or model is added without touching the others; what the values depend on makes them anew."""
    bench(toy, tmp_path, tasks=["retrieval"])

    def made(**changes: Any) -> set[str]:
        before = times(tmp_path)
        bench(changes.pop("table", toy), tmp_path, **changes)
        return changed(before, tmp_path)

    other_tasks = replace(QUICK, tasks=("knn",))  # not read
    assert made(config=other_tasks) == {"a clustering", "a knn", "b clustering", "b knn"}
    assert made(seed=1) == {"a retrieval", "a clustering", "a knn"}
    monkeypatch.setitem(TASKS, "knn", replace(TASKS["knn"], version=99))
    assert made(seed=1) == {"a knn", "b knn"}
    assert made(seed=1) == set()
    assert made(seed=1, config=replace(QUICK, bootstrap_rounds=21)) == set(times(tmp_path))
    relabelled = replace(toy, frame=toy.frame.assign(condition=toy.frame["condition"].to_numpy()[::-1]))
    assert made(seed=1, table=relabelled, tasks=["retrieval"]) == {"a retrieval", "b retrieval"}


def test_results_that_do_not_compare_are_refused(toy: CaseTable, tmp_path: Path) -> None:
    bench(toy, tmp_path, tasks=["retrieval"])
    more = bench(toy, tmp_path, tasks=["knn"], config=replace(QUICK, bootstrap_rounds=30))
    with pytest.raises(BenchmarkError, match="must have results with the same evaluation to be compared, it has 2"):
        more.to_pandas()
    with pytest.raises(BenchmarkError, match="unknown task or suite 'retreival'"):
        bench(toy, tmp_path, tasks=["retreival"])
    with pytest.raises(BenchmarkError, match="models must be names with models"):
        hierderm.bench({}, toy, toy.taxonomy, folder=tmp_path / "none")


def test_folds_and_seeds(toy: CaseTable, tmp_path: Path) -> None:
    """Folds are combined as a mean over their images; objects are models; seeds are a list."""
    numbers = np.unique(toy.case_ids, return_inverse=True)[1]
    splits = [np.where(numbers % 2 == fold, "test", "train") for fold in range(2)]
    tables = [replace(toy, frame=toy.frame.assign(split=split)) for split in splits]

    class Encoder:
        def __init__(self, seed: int) -> None:
            self.seed = seed

        def encode(self, images: list[Path]) -> np.ndarray:
            return vectors(toy, self.seed)

    models = {"one": Encoder(0), "two": [Encoder(0), Encoder(1)]}
    options: dict[str, Any] = {"tasks": ["retrieval"], "config": QUICK}
    results = hierderm.bench(models, tables, toy.taxonomy, folder=tmp_path / "bench", **options)
    one, two = (results.models[name]["retrieval"].evaluation for name in ("one", "two"))
    assert one.n_images == two.n_images == len(toy)
    key = ("fine", "recall_at_1")
    values = []
    for seed in range(2):
        embedded = EmbeddingTable(unit_length(vectors(toy, seed)), toy.frame)
        parts = [evaluate(embedded, table, toy.taxonomy, **options)[key] for table in tables]
        values.append(np.average([part.value for part in parts], weights=[part.count for part in parts]))
    assert one[key].value == pytest.approx(values[0]) and two[key].value == pytest.approx(np.mean(values))
