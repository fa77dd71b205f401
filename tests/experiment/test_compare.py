"""Comparisons: report and resumption, folds, repeats and seeds, and what a split by image would have claimed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hierderm
from hierderm.artifacts import claim_folder, holds
from hierderm.config.loading import to_dict, with_overrides
from hierderm.config.settings import Comparison, ModelEntry
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import ConfigError, OutputError
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.tasks.registry import tasks_named
from hierderm.experiment import compare as comparing
from hierderm.experiment.compare import _trainings, compare
from hierderm.experiment.protocol import Division
from hierderm.experiment.results import COMPARISON, Results
from hierderm.experiment.run import Run, prepared
from hierderm.report.page import is_ours

FLAT = {"training.loss.classification_level": "coarse", "training.loss.schedule": "joint"}
MODELS: list[dict[str, Any]] = [
    {"name": "vanilla", "method": "vanilla"},
    {"name": "linear-probe", "method": "linear_probe", "set": {"training.views": 1, "training.penalties": [0.01, 1.0]}},
    {"name": "lda", "method": "lda", "set": {"training.views": 1, "training.shrinkages": [0.1, 0.9]}},
    {"name": "flat-coarse", "set": FLAT},
    {
        "name": "tree-lda",
        "method": "tree_lda",
        "set": {"training.views": 1, "training.shrinkages": [0.4], "training.folds": 2},
    },
    {"name": "hierarchical"},
]
# Quick, though it reads a seed; one task is enough for what is not about tasks.
FEW = {"training.views": 1, "training.features": "output", "training.shrinkages": [0.1, 0.9]}
LDA = {"name": "lda", "method": "lda", "set": FEW}
QUICK: dict[str, Any] = {"models": [LDA], "training": {}, "evaluation.tasks": ["retrieval"]}


@pytest.fixture
def every_method(toy_comparison: Comparison) -> Comparison:
    return with_overrides(toy_comparison, {"models": MODELS, "evaluation.groups": True})


@pytest.mark.together("long")
@pytest.mark.usefixtures("drawn_pages")
def test_a_comparison_writes_its_report_and_resumes(
    every_method: Comparison, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = compare(every_method, tmp_path)
    html, report = page.read_text(), json.loads((tmp_path / "report.json").read_text())
    assert [model["model"] for model in report["models"]] == [model["name"] for model in MODELS]
    assert [model["method"] for model in report["models"]] == [model.get("method", "gradient") for model in MODELS]
    assert report["config"] == json.loads(json.dumps(to_dict(every_method)))
    for model in report["models"]:
        names = {(metric["level"], metric["name"]) for metric in model["metrics"]}
        assert {("coarse", "ami"), ("fine", "map_at_r"), ("fine", "purity_unweighted")} <= names
        assert (("fine", "top1_accuracy") in names) == (model["model"] not in ("vanilla", "flat-coarse"))
    assert any(sentence.startswith("hierarchical against vanilla") for sentence in report["summary"])
    assert "not a medical device" in html
    assert "http://" not in html and "https://" not in html  # readable without internet
    assert html.count("data:image/jpeg") > 20
    assert "; chosen on validation)" in html

    figures = {name: tmp_path / "models" / name / "model" / "results.png" for name in ("lda", "vanilla")}
    weights = {name: Run.open(tmp_path / "models" / name).encoder.provenance.weights_hash for name in figures}
    figures["lda"].write_bytes(b"mine")

    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    caplog.clear()
    caplog.set_level("INFO")
    monkeypatch.setattr(comparing, "_features", None)  # what is finished needs none, and so no import of torch
    compare(every_method, tmp_path)
    assert sum(message.endswith(": already trained.") for message in caplog.messages) == len(MODELS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == times
    assert figures["lda"].read_bytes() == b"mine" and is_ours(figures["vanilla"].read_bytes())
    assert weights == {n: Run.open(tmp_path / "models" / n).encoder.provenance.weights_hash for n in figures}
    assert len(caplog.messages) == len(set(caplog.messages))  # no warning is repeated for each model
    assert json.loads((tmp_path / "report.json").read_text())["models"] == report["models"]

    # The report and the leaderboard are two views of one store.
    results = Results.open(tmp_path)
    joined = results.joined("lda", tasks_named(every_method.evaluation.tasks)).to_dict()
    assert {key: value for key, value in report["models"][2].items() if key in joined} == joined
    board = results.to_pandas().set_index("model")
    for model in report["models"]:
        (metric,) = [m for m in model["metrics"] if (m["level"], m["name"]) == ("fine", "map_at_r")]
        assert board.loc[model["model"], "fine map_at_r"] == metric["value"]

    # A benchmark adds a model to it, and leaves the others alone.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/*/*")}
    table, _ = prepared(every_method.data, every_method.split, tmp_path)
    options: dict[str, Any] = {"tasks": every_method.evaluation.tasks, "config": every_method.evaluation}
    more = hierderm.bench({"colour": "colour"}, table, table.taxonomy, folder=tmp_path, **options)
    assert len(more.to_pandas()) == len(MODELS) + 1
    assert {path: path.stat().st_mtime_ns for path in before} == before

    # Every model is a run on the same split, with a model folder and embeddings of the same images.
    runs = [Run.open(tmp_path / "models" / model["name"]) for model in MODELS]
    assert len({run.table.split_hash for run in runs}) == 1
    tables = [EmbeddingTable.load(run.folder / "embeddings") for run in runs]
    assert len({tuple(table.frame["image_id"]) for table in tables}) == 1
    assert all(holds(run.folder / "model", "model") for run in runs)


def test_a_comparison_must_be_complete(toy_comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must list its models"):
        compare(with_overrides(toy_comparison, {"models": []}), tmp_path)
    with pytest.raises(ConfigError, match="needs 'retrieval' among evaluation.tasks"):
        compare(with_overrides(toy_comparison, {"evaluation.tasks": ["clustering"]}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_levels_of_all_models_are_named_before_any_is_trained(
    toy_comparison: Comparison, toy: CaseTable, tmp_path: Path
) -> None:
    levels = {"a": {"fine": 1.0}, "b": {"famly": 1.0}, "c": {"body": 1.0}}
    entries = [
        {"name": name, "method": "tree_lda", "set": {"training.probability_levels": own}}
        for name, own in levels.items()
    ]
    comparison = with_overrides(toy_comparison, {"models": entries, "training": {}})
    wanted = (
        r", condition: model 'b': training\.probability_levels names 'famly'; "
        r"model 'c': training\.probability_levels names 'body'\.$"
    )
    with pytest.raises(ConfigError, match=wanted):
        comparing.make_models(comparison, [[Division(tmp_path, toy)]], tmp_path)
    assert not list(tmp_path.iterdir())


def two_vanilla(comparison: Comparison) -> Comparison:
    """Quick: nothing is learnt."""
    comparison = with_overrides(comparison, {"evaluation.tasks": ["retrieval"]})
    return replace(comparison, training={}, models=tuple(ModelEntry(name, "vanilla") for name in ("a", "b")))


def test_a_warning_of_several_models_is_said_once(
    toy_comparison: Comparison, toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = pd.read_csv(toy_folder / "cases.csv", dtype=str)
    frame["source"] = np.where(frame["condition"] == frame["condition"][0], "rare", "other")
    frame["image_path"] = [str(toy_folder / path) for path in frame["image_path"]]
    frame.to_csv(tmp_path / "cases.csv", index=False)
    own = {"data.cases": str(tmp_path / "cases.csv"), "evaluation.groups": True}
    page = compare(two_vanilla(with_overrides(toy_comparison, own)), tmp_path / "out")
    (said,) = [text for text in caplog.messages if "have images of one node" in text]
    assert said.startswith("all 2 models: ") and "source 'rare'" in said
    assert said in json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert page.read_text().count("have images of one node") == 1


def test_the_report_again_as_pdf(
    toy_comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a browser that keeps the page it is given."""
    comparison = two_vanilla(toy_comparison)
    report = compare(comparison, tmp_path / "out")
    before = report.stat().st_mtime_ns
    fake = tmp_path / "browser"
    target = 'target=$(printf "%s\\n" "$@" | sed -n "s/^--print-to-pdf=//p")'
    fake.write_text(
        f'#!/bin/sh\n{target}\nfor last; do :; done\n(printf "%%PDF "; cat "${{last#file://}}") > "$target"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("HIERDERM_BROWSER", str(fake))
    caplog.clear()
    with caplog.at_level("INFO"):
        compare(comparison, tmp_path / "out", pdf=True)
    assert [text for text in caplog.messages if text.startswith("a: ")] == ["a: already trained.", "a: all tasks done."]
    assert report.stat().st_mtime_ns == before and "Writing the report ..." not in caplog.messages
    page = (tmp_path / "out" / "report.pdf").read_text()
    assert page.count("<svg") == 1 and page.count("<table") == 1 and "<details" not in page
    assert "2 models on cases.csv" in page and "not a medical device" in page and " has the best value in " in page
    text = report.read_text()
    report.write_text(text.replace("has the best value", "has no value"))
    compare(comparison, tmp_path / "out")
    assert report.read_text() == text  # a page of other values is drawn anew
    (tmp_path / "out" / "report.pdf").write_bytes(b"%PDF mine")
    with pytest.raises(OutputError, match=r"report\.pdf is not a report of hierderm and would be overwritten"):
        compare(comparison, tmp_path / "out", pdf=True)


@pytest.mark.filterwarnings("ignore::hierderm.errors.EvaluationWarning")
def test_every_fold_and_several_seeds(toy_comparison: Comparison, tmp_path: Path) -> None:
    protocol = {"split.folds": 2, "protocol.every_fold": True, "protocol.seeds": 2}
    models = [{"name": "vanilla", "method": "vanilla"}, LDA]
    comparison = with_overrides(toy_comparison, {**protocol, **QUICK, "models": models})
    page = compare(comparison, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    vanilla, lda = report["models"]
    assert vanilla["n_cases"] == lda["n_cases"] == 48  # every case is tested once
    assert (vanilla["n_runs"], lda["n_runs"]) == (2, 4)  # vanilla reads no seed
    assert "2-fold cross-validation" in page.read_text() and "trained 2 times" in page.read_text()
    runs = [Run.open(tmp_path / f"fold-{fold}" / "models" / "vanilla") for fold in range(2)]
    folds = [
        evaluate(one.embeddings(), one.table, one.taxonomy, config=comparison.evaluation).to_dict() for one in runs
    ]

    def metric(content: dict) -> dict:  # type: ignore[type-arg]
        return next(m for m in content["metrics"] if (m["level"], m["name"]) == ("coarse", "map_at_r"))

    counts = [metric(content)["count"] for content in folds]
    expected = sum(metric(content)["value"] * n for content, n in zip(folds, counts, strict=True)) / sum(counts)
    assert metric(vanilla)["value"] == pytest.approx(expected)
    seeds = [Run.open(tmp_path / "fold-0" / "models" / name).config.training for name in ("lda", "lda@1")]
    assert [training.seed for training in seeds] == [0, 1]  # type: ignore[union-attr]


def test_repeats_divide_anew(toy_comparison: Comparison, tmp_path: Path) -> None:
    protocol = {"split.folds": 2, "protocol.every_fold": True, "protocol.repeats": 2}
    page = compare(with_overrides(toy_comparison, {**protocol, **QUICK}), tmp_path).read_text()
    (lda,) = json.loads((tmp_path / "report.json").read_text())["models"]
    assert (lda["n_cases"], lda["n_runs"]) == (48, 4)
    assert "2-fold cross-validation, 2 times with the cases divided anew" in page
    first, second = (Run.open(tmp_path / name / "models" / "lda") for name in ("fold-0", "fold-0@1"))
    assert first.table.split_hash != second.table.split_hash
    assert [run.config.training.seed for run in (first, second)] == [0, 1]  # type: ignore[union-attr]
    features = list((tmp_path / "features").glob("*.npy"))  # of the images, and of their copies by either seed
    assert len(features) == 3  # each goes through the backbone once, in whatever fold


def test_a_model_that_reads_no_seed_is_trained_once(toy_comparison: Comparison) -> None:
    """Without augmentation two seeds would give one model twice, and its seed variance would be 0."""
    set_ = {"lda": {"training.views": 0}, "tree_lda": {"training.views": 0}, "linear_probe": {}}
    models = [{"name": name, "method": name, "set": own} for name, own in set_.items()]
    models.append({"name": "control", "method": "tree_lda", "set": {"training.views": 0, "training.shuffle": True}})
    settings = {"models": models, "training": {"features": "output"}, "protocol.seeds": 3}
    comparison = with_overrides(toy_comparison, settings)
    division = Division(Path("runs"), toy_comparison)  # type: ignore[arg-type]  # its table is not looked at
    found = {entry.name: len(_trainings(comparison, entry, division)) for entry in comparison.models}
    assert found == {"lda": 1, "tree_lda": 1, "linear_probe": 3, "control": 3}


def test_more_seeds_keep_what_is_trained(
    toy_comparison: Comparison, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    comparison = with_overrides(toy_comparison, QUICK)
    compare(comparison, tmp_path)
    caplog.set_level("INFO")
    compare(with_overrides(comparison, {"protocol.seeds": 2, "evaluation.bootstrap_rounds": 30}), tmp_path)
    assert sum(message.endswith(": already trained.") for message in caplog.messages) == 1
    assert "lda: training by method 'lda' ..." in caplog.messages
    assert (tmp_path / "models" / "lda@1" / "finished.json").is_file()


def test_a_page_that_is_no_report_is_not_overwritten(toy_comparison: Comparison, tmp_path: Path) -> None:
    claim_folder(tmp_path, COMPARISON)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html is not a report of hierderm and would be overwritten"):
        compare(toy_comparison, tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"
