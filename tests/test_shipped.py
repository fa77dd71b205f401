"""Experiments by name, as commands take them: no clone is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from hierderm.config.loading import load_comparison, load_config
from hierderm.config.methods import Gradient
from hierderm.errors import ConfigError
from hierderm.model.loading import load
from hierderm.shipped import experiment_list, settings_file, shipped_experiments
from tests.cli.commands import fails, run


def test_a_name_is_a_shipped_file_and_a_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three_way").write_text("name = 'mine'")  # what lies here does not change what a name means
    assert settings_file("three_way") == shipped_experiments()["three_way"]
    assert settings_file("./three_way") == Path("three_way")
    assert next(entry.name for entry in load_comparison("three_way").models) == "vanilla"
    assert re.fullmatch(r"(  \w+ +[A-Z][^\n]+\.\n?)+", experiment_list())


def test_an_unknown_name_lists_what_is_shipped() -> None:
    message = fails("compare", "three_wy")
    assert message.startswith(
        "settings must be a TOML file or a shipped experiment, 'three_wy' is neither. Closest: 'three_way'. "
    )
    assert "  two_head     One model: contrast of categories, " in message
    assert "'elsewhere/two_heads.toml' is neither. Closest: 'two_head'." in fails("train", "elsewhere/two_heads.toml")
    assert "or a shipped experiment:\n  fine_tuning  Six models" in fails("compare")
    with pytest.raises(ConfigError, match="three_way is a comparison of .* Use: hierderm compare"):
        load_config("three_way")


@pytest.mark.parametrize("command", ["train", "tune", "compare", "inflation", "config"])
def test_help_lists_what_is_shipped(command: str) -> None:
    shown = run(command, "--help")
    assert all(line in shown and len(line) <= 78 for line in experiment_list().splitlines())


def test_config_lists_what_is_shipped_and_completes_it() -> None:
    assert "\n#   three_way    Seven models" in run("config")
    assert 'classification_level = "fine"' in run("config", "two_head")


def test_two_heads_are_trained_by_name(toy_folder: Path, tmp_path: Path) -> None:
    training = load_config("two_head").training
    assert isinstance(training, Gradient) and training.loss.contrastive_levels == {"coarse": 1.0}
    data = ["--data.cases", toy_folder / "cases.csv", "--data.taxonomy", toy_folder / "taxonomy.csv"]
    fast = ["--training.epochs", "1", "--training.views", "0", "--training.closed_form.folds", "0"]
    shown = run("train", "two_head", *data, *fast, "-o", tmp_path / "run")
    assert "model: gradient, epoch " in shown and "validation: MAP@R coarse 0." in shown
    model = load(tmp_path / "run")
    image = toy_folder / pd.read_csv(toy_folder / "cases.csv")["image_path"][0]
    assert model.predict_proba(image).shape == (1, model.taxonomy.size(-1) if model.taxonomy else 0)
