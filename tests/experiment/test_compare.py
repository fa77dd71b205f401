"""Folds and seeds of a comparison, and what a split by image would have claimed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.errors import ConfigError
from hierderm.experiment.compare import compare, inflation
from hierderm.training.methods.probes import fit_probe

MODELS = [{"name": "vanilla", "method": "vanilla"}, {"name": "tree"}]


def test_every_fold_and_several_seeds(toy_config: Config, tmp_path: Path) -> None:
    settings = {
        "models": MODELS,
        "split.folds": 3,
        "protocol.every_fold": True,
        "protocol.seeds": 2,
        "training.epochs": 1,
    }
    config = with_overrides(toy_config, settings)
    page = compare(config, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    vanilla, tree = report["models"]
    assert vanilla["n_cases"] == tree["n_cases"] == 48  # every case is tested once
    assert (vanilla["n_runs"], tree["n_runs"]) == (3, 6)
    for fold in range(3):
        for name in ("vanilla", "tree", "tree@1"):
            assert (tmp_path / f"fold-{fold}" / "models" / name / "evaluation.json").is_file()
    assert "3-fold cross-validation" in page.read_text() and "trained 2 times" in page.read_text()
    of_folds = [json.loads((tmp_path / f"fold-{k}/models/vanilla/evaluation.json").read_text()) for k in range(3)]

    def figure(content: dict) -> dict:  # type: ignore[type-arg]
        return next(m for m in content["metrics"] if (m["level"], m["name"]) == ("coarse", "map_at_r"))

    expected = sum(figure(c)["value"] * figure(c)["count"] for c in of_folds) / sum(
        figure(c)["count"] for c in of_folds
    )
    assert figure(vanilla)["value"] == pytest.approx(expected)


def test_folds_must_be_named(toy_config: Config) -> None:
    with pytest.raises(ConfigError, match=r"protocol.every_fold needs split.folds of at least 2"):
        with_overrides(toy_config, {"protocol.every_fold": True})


def test_repeats_divide_anew(toy_config: Config, tmp_path: Path) -> None:
    settings = {"models": MODELS[:1], "split.folds": 3, "protocol.every_fold": True, "protocol.repeats": 2}
    page = compare(with_overrides(toy_config, settings), tmp_path).read_text()
    (vanilla,) = json.loads((tmp_path / "report.json").read_text())["models"]
    assert (vanilla["n_cases"], vanilla["n_runs"]) == (48, 6)
    assert "3-fold cross-validation, 2 times with the cases divided anew" in page
    first, second = (read_split(tmp_path / name / "cases.csv") for name in ("fold-0", "fold-0@1"))
    assert first != second
    assert len(list((tmp_path / "features").iterdir())) == 1  # one picture, one pass of the backbone
    with pytest.raises(
        ConfigError, match=r"protocol.repeats divides the cases anew for every fold: set protocol.every"
    ):
        with_overrides(toy_config, {"protocol.repeats": 2})


def read_split(path: Path) -> dict[str, str]:
    frame = pd.read_csv(path, dtype=str)
    return dict(zip(frame["image_id"], frame["split"], strict=True))


def test_a_report_needs_retrieval(toy_config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 'retrieval' among evaluation.tasks"):
        compare(with_overrides(toy_config, {"models": MODELS, "evaluation.tasks": ["clustering"]}), tmp_path)


def test_more_seeds_keep_what_is_trained(toy_config: Config, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"models": MODELS[1:], "training.epochs": 1})
    compare(config, tmp_path)
    said: list[str] = []
    compare(with_overrides(config, {"protocol.seeds": 2, "evaluation.bootstrap_rounds": 30}), tmp_path, said.append)
    assert said.count("Already trained.") == 1 and "tree@1: training ..." in said


def test_baselines_learn_from_views_as_all_methods_do(
    toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def counted(method: str, features: Any, fine: Any, *others: Any) -> Any:
        seen[method] = len(features), len(fine)
        return fit_probe(method, features, fine, *others)

    monkeypatch.setattr("hierderm.training.methods.probes.fit_probe", counted)
    entries = [
        {"name": "lda", "method": "lda"},
        {"name": "probe", "method": "linear_probe", "set": {"training.views": 0}},
    ]
    compare(with_overrides(toy_config, {"models": entries, "training.views": 2}), tmp_path)
    n_training = int((pd.read_csv(tmp_path / "cases.csv")["split"] == "train").sum())
    assert seen == {"lda": (3 * n_training, 3 * n_training), "linear_probe": (n_training, n_training)}


def test_a_split_by_image_flatters(toy_config: Config, tmp_path: Path) -> None:
    """Pictures of one case are alike, so that a query that may find its own case scores higher."""
    rows = inflation(with_overrides(toy_config, {"models": MODELS[:1]}), tmp_path)
    found = {(row["level"], row["name"]): row for row in rows}
    recall = found["fine", "recall_at_1"]
    assert recall["own_case_allowed"]["value"] > recall["by_case"]["value"]
    assert json.loads((tmp_path / "inflation.json").read_text()) == rows
    assert recall["by_image"]["count"] > 0
