"""The benchmark from its commands: run, resume, table, compare, folds and seeds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hierderm.cli.main import app
from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.errors import BenchmarkError, ConfigError, HierdermError
from hierderm.experiment.leaderboard import as_markdown, columns_of, compare_models, leaderboard
from hierderm.experiment.results import Results
from hierderm.experiment.run import prepare, train


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, toy: CaseTable) -> Path:
    """The toy with its split, and three models' embeddings: good, noisy, and without any sense."""
    folder = tmp_path_factory.mktemp("data")
    toy.write(folder / "cases.csv")
    from hierderm.taxonomy.file import write_taxonomy

    write_taxonomy(toy.taxonomy, folder / "taxonomy.csv")
    rng = np.random.default_rng(0)
    for name, noise in (("good", 0.1), ("noisy", 0.5), ("noisy2", 0.6), ("senseless", 100.0)):
        np.save(folder / f"{name}.npy", np.eye(9)[toy.fine] + noise * rng.normal(size=(len(toy), 9)))
    return folder


def arguments(data: Path, out: Path, *models: str) -> list[object]:
    named = [part for model in models for part in ("-m", model.replace("@", f"{data}/"))]
    return [
        "run",
        *named,
        "--data.cases",
        data / "cases.csv",
        "--data.taxonomy",
        data / "taxonomy.csv",
        "-o",
        out,
        "--evaluation.bootstrap_rounds",
        60,
    ]


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench")
    said = run(*arguments(data, out, "noisy=@noisy.npy", "good=@good.npy", "senseless=@senseless.npy", "colour"))
    assert "Leaderboard" in said and "mean rank" in said
    return out


def test_the_best_leads_and_the_senseless_is_last(done: Path) -> None:
    table = leaderboard(Results.open(done))
    assert list(table["model"][:2]) == ["good", "noisy"]
    best = table.iloc[0]
    assert best["mean_rank"] < 1.5 and best["mean_rank_low"] <= best["mean_rank"] <= best["mean_rank_high"]
    assert best["fine recall_at_1"] > 0.9 > table.iloc[-1]["fine recall_at_1"]
    assert best["n_ranked"] == len(columns_of(Results.open(done)))


def test_what_a_result_holds(done: Path) -> None:
    content = json.loads((done / "results" / "good" / "retrieval.json").read_text())
    assert content["task_version"] == 1 and len(content["table_hashes"]) == 1 and content["dim"] == 9
    assert {"seconds", "embedding_seconds", "process_peak_memory_mb", "environment", "sources"} <= content.keys()
    assert {"level", "name", "value", "low", "high", "count", "skipped", "better"} == content["metrics"][0].keys()


def test_a_second_run_does_nothing_and_a_new_model_is_added(data: Path, done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.json") if "results" in path.parts}
    said = run(*arguments(data, done, "good=@good.npy", "noisier=@noisy2.npy"))
    assert "good: all tasks done." in said and "noisier: embedding" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    broken = done / "results" / "good" / "knn.npz"
    broken.unlink()  # as a killed run leaves it
    assert "good: knn ..." in run(*arguments(data, done, "good=@good.npy"))


def test_tables_in_every_format(done: Path, tmp_path: Path) -> None:
    markdown = run("table", done, "-f", "markdown")
    assert markdown.startswith("| model | mean rank | ")
    assert markdown.strip() == as_markdown(Results.open(done))
    csv = pd.read_csv(io.StringIO(run("table", done, "-f", "csv")))
    assert {"model", "mean_rank", "fine map_at_r", "fine map_at_r low"} <= set(csv)
    run("table", done, "-f", "html", "-o", tmp_path / "table.html")
    page = (tmp_path / "table.html").read_text()
    assert "<title>5 models: benchmark bench" in page and "not a medical device" in page and "https://" not in page
    assert "good has the best mean rank of 5 models, " in page and "forest plot: good minus each other model" in page
    assert page.count("<details") == 2 and "all 5 models: " in page  # warnings, and all metrics
    shown = run("table", done)
    assert "mean rank" in shown
    assert shown.rpartition("┘")[2].strip().startswith("good has the best mean rank of 5 models, ")


def test_paired_differences(done: Path) -> None:
    said = run("difference", "good", "senseless", "-i", done)
    assert "good minus senseless: difference, 95 % interval, p adjusted for" in said
    assert "better" in said
    found = json.loads(run("difference", "good", "senseless", "-i", done, "--json"))
    (of_map,) = [d for d in found if (d["level"], d["name"]) == ("fine", "map_at_r")]
    assert of_map["low"] > 0 and of_map["p_adjusted"] >= of_map["p_value"]
    results = Results.open(done)
    assert len(compare_models(results, "good", "noisy", 0.95, every=True)) > len(found)
    height = next(
        d for d in compare_models(results, "good", "senseless", 0.95, every=False) if d.name == "lca_height_at_10"
    )
    assert height.value < 0 and height.better
    with pytest.raises(BenchmarkError, match="there is no model 'god'. Closest: 'good'"):
        compare_models(results, "god", "good", 0.95, every=False)


def test_seeds_and_folds(data: Path, tmp_path: Path) -> None:
    run(
        *arguments(data, tmp_path, "two=@noisy.npy+@noisy2.npy", "one=@noisy.npy"),
        "--suite",
        "retrieval",
        "--split.folds",
        3,
    )
    results = Results.open(tmp_path).models
    toy = pd.read_csv(data / "cases.csv")
    content = results["two"]["retrieval"].content
    assert (
        content["n_images"] == len(toy) and content["n_cases"] == toy["case_id"].nunique()
    )  # every case is tested once
    assert len(set(content["table_hashes"])) == 3
    file = json.loads((tmp_path / "results" / "two" / "retrieval.json").read_text())
    assert json.loads(json.dumps(content)) == {key: value for key, value in file.items() if key in content}
    one, two = (results[name]["retrieval"].evaluation["fine", "map_at_r"].value for name in ("one", "two"))
    assert one != two


def test_a_model_trained_on_another_split_is_refused(toy_config: Config, data: Path, tmp_path: Path) -> None:
    other = with_overrides(toy_config, {"split.seed": 9, "training.epochs": 1})
    table, _ = prepare(other.data, other.split, tmp_path / "run")
    train(other, table, tmp_path / "run")
    with pytest.raises(
        HierdermError, match="leak: the model was trained on split .*, the table has .*: test cases may"
    ):
        run(*arguments(data, tmp_path / "bench", f"leak={tmp_path / 'run' / 'model'}"), "--suite", "retrieval")


def test_what_is_refused(data: Path, done: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="the names of models must differ"):
        run(*arguments(data, tmp_path, "a=colour", "a=@good.npy"))
    with pytest.raises(
        BenchmarkError, match="must be a hierderm comparison or benchmark folder, it has no hierderm.json"
    ):
        run("table", tmp_path)
    for unread, message in (
        (("--evaluation.tasks", "knn"), r"bench run does not read \['evaluation.tasks'\]. Name tasks by --suite."),
        (("--evaluation.index_kind", "flat"), "is read only where evaluation.tasks has 'retrieval_index'"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(*arguments(data, tmp_path, "colour"), *unread)
    with pytest.raises(HierdermError, match="holds results on other data"):
        run(*arguments(data, done, "colour"), "--split.folds", 0, "--suite", "quick", "--data.cases", "synthetic:toy")


def test_tasks_are_listed() -> None:
    assert "suite core: clustering, retrieval" in run("tasks")
