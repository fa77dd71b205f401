"""Every method makes a model of the same kind: trained on the toy, saved, loaded, embedding the same vectors, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hierderm import columns as c
from hierderm.artifacts import read_header
from hierderm.config.loading import with_overrides
from hierderm.config.methods import METHODS
from hierderm.config.settings import Config
from hierderm.evaluation.validation import validation_scores
from hierderm.experiment.run import Run, prepare, train
from hierderm.model.loading import load
from hierderm.report.page import is_ours
from hierderm.training.fit import FITS, is_frozen

QUICK = {
    "vanilla": {},
    "linear_probe": {"training.views": 1, "training.penalties": [0.01, 1.0]},
    "lda": {"training.views": 1, "training.shrinkages": [0.1, 0.9]},
    "tree_lda": {"training.views": 1, "training.shrinkages": [0.4], "training.folds": 2},
    "gradient": {},
}


def test_every_method_has_settings_and_a_fit() -> None:
    assert FITS.keys() == METHODS.keys() == QUICK.keys()


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("method", METHODS)
def test_a_method_makes_a_model_folder(toy_config: Config, tmp_path: Path, method: str) -> None:
    config = with_overrides(toy_config, {"training.method": method, **QUICK[method]})
    table, _ = prepare(config.data, config.split, tmp_path)
    run = train(config, table, tmp_path)

    # The model is chosen by its validation score, and is the one whose scores the history has.
    embedded = run.embeddings()
    validation = table.splits == c.VALIDATION
    scores = validation_scores(embedded.embeddings[validation], table.part(c.VALIDATION))
    chosen = run.history.iloc[run.chosen]
    for name, value in scores.items():
        assert chosen[name] == pytest.approx(value, abs=0.02)  # float32 may swap near ties

    # Saved and loaded it embeds the same vectors, from images as from cached features.
    folder = tmp_path / "model"
    again = load(folder).embed(table)
    np.testing.assert_allclose(again.embeddings, embedded.embeddings, atol=1e-5)
    assert (again.probabilities is None) == (embedded.probabilities is None) == (method == "vanilla")
    if again.probabilities is not None and embedded.probabilities is not None:
        np.testing.assert_allclose(again.probabilities, embedded.probabilities, atol=1e-5)
        np.testing.assert_allclose(again.probabilities.sum(axis=1), 1, atol=1e-5)
    assert read_header(folder, "model").content["split_hash"] == ("" if method == "vanilla" else table.split_hash)
    card = (folder / "README.md").read_text()
    assert f"`{method}`: " in card and str(Path(toy_config.data.cases).parent) not in card.partition("| method")[2]
    assert "![Results](results.png)" in card and is_ours((folder / "results.png").read_bytes())
    about: Any = yaml.safe_load(card.split("---")[1])
    [results] = about["model-index"][0]["results"]
    assert results["dataset"]["name"] == "cases.csv" and results["dataset"]["split"] == "validation"
    shown = [(metric["type"], metric["args"]["level"]) for metric in results["metrics"]]
    assert shown == [(name, level) for name in ("map_at_r", "recall_at_1") for level in ("coarse", "fine")]
    assert set(about["taxonomy"]) == {"id", "version", "hash"} and "base_model" not in about

    # Given again, the command opens the run; killed before its last write, it makes the same one.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    opened = train(config, table, tmp_path)
    assert opened.history.equals(run.history) and opened.chosen == run.chosen
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times
    (tmp_path / "finished.json").unlink()
    resumed = train(config, table, tmp_path)
    assert resumed.history.equals(run.history)
    repeated = resumed.encoder.embed(table)
    np.testing.assert_allclose(repeated.embeddings, embedded.embeddings, atol=1e-5)
    assert Run.open(tmp_path).config == config


def test_which_methods_leave_the_backbone_as_it_is() -> None:
    assert all(is_frozen(METHODS[method]()) for method in METHODS)
    assert not is_frozen(METHODS["gradient"](freeze="last_blocks"))
